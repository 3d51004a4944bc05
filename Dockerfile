# The page in a container, on CPUs or NVIDIA GPUs: docs/app.md#in-a-container-and-on-hosts-of-pages says how to build and run it.
FROM python:3.12-slim
# The package index holds one build of PyTorch for each platform, on x86 the one for CUDA, which computes on CPUs too and is large. Another
# build, such as the small one for CPUs, is taken from the address that PyTorch's installation page names for it.
ARG TORCH_INDEX=""

RUN useradd --create-home dagan
WORKDIR /home/dagan/app
COPY pyproject.toml README.md LICENSE requirements.lock app.py ./
COPY src src
RUN grep '^torch==' requirements.lock > torch.txt \
 && pip install --no-cache-dir ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} -r torch.txt \
 && pip install --no-cache-dir --constraint requirements.lock '.[app]'

USER dagan
ENV PORT=7860 DAGAN_OFFLINE=1
EXPOSE 7860
CMD ["python", "app.py"]
