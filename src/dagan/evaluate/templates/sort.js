// Sorting by a click on a heading; without scripts the table stays as it is. What is not a number comes last either way.
for (const table of document.querySelectorAll("table.sortable")) {
  const number = (cell) => parseFloat(cell.textContent.replace("\u2212", "-"));
  table.querySelectorAll("thead th").forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const way = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      for (const other of table.querySelectorAll("thead th")) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", way === 1 ? "ascending" : "descending");
      const words = head.classList.contains("text");
      const rows = [...table.tBodies[0].rows];
      rows.sort((a, b) => {
        const [x, y] = [a.cells[column], b.cells[column]];
        if (words) return way * x.textContent.localeCompare(y.textContent, "en", { numeric: true });
        const [u, v] = [number(x), number(y)];
        return isNaN(u) || isNaN(v) ? isNaN(u) - isNaN(v) : way * (u - v);
      });
      table.tBodies[0].append(...rows);
    });
  });
}
