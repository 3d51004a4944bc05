// The clean picture of a live session, for programs that show a page as a camera. It connects again by itself.
"use strict";
const canvas = document.getElementById("picture");
if (new URLSearchParams(location.search).has("mirror")) canvas.style.transform = "scaleX(-1)";
function connect() {
  const address = new URL("watch" + location.search, location.href);
  address.protocol = address.protocol === "https:" ? "wss:" : "ws:";
  const socket = new WebSocket(address);
  socket.binaryType = "blob";
  socket.onmessage = async (event) => {
    const picture = await createImageBitmap(event.data);
    if (canvas.width !== picture.width || canvas.height !== picture.height) Object.assign(canvas, { width: picture.width, height: picture.height });
    canvas.getContext("2d").drawImage(picture, 0, 0);
    picture.close();
    document.body.dataset.frames = String(Number(document.body.dataset.frames || 0) + 1);
  };
  socket.onclose = () => setTimeout(connect, 1000);
}
connect();
