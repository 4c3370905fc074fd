"use strict";
// What only works with this script is hidden without it.
document.documentElement.classList.add("js");

const place = (tile, x, y) => {
  tile.style.setProperty("--x", x);
  tile.style.setProperty("--y", y);
};

// Sliders: every tile of the figure shows the column that the slider stands at, in its own row of the chosen pair.
for (const range of document.querySelectorAll(".live input[type=range]")) {
  const figure = range.closest("figure"), pair = figure.querySelector("select");
  const labels = JSON.parse(range.dataset.labels), shown = figure.querySelector("output");
  const show = () => {
    shown.value = labels[range.value];
    range.setAttribute("aria-valuetext", labels[range.value]);
    for (const tile of figure.querySelectorAll(".tile")) {
      place(tile, range.value, Number(tile.dataset.y) + Number(pair ? pair.value : 0));
    }
  };
  range.addEventListener("input", show);
  if (pair) pair.addEventListener("change", show);
  show();
}

// Samples that open beside their neighbours.
for (const figure of document.querySelectorAll("#neighbours")) {
  const dialog = figure.querySelector("dialog"), buttons = [...figure.querySelectorAll(".gallery button")];
  let current = 0;
  const open = (index) => {
    current = (index + buttons.length) % buttons.length;
    const facts = JSON.parse(buttons[current].dataset.facts);
    dialog.querySelector("h3").textContent =
      `Sample ${facts[0]}, number ${facts[6]} by distance${facts[7] ? ", flagged as a copy" : ""}`;
    for (const slot of dialog.querySelectorAll("[data-fact]")) slot.textContent = facts[slot.dataset.fact];
    dialog.querySelectorAll(".tile").forEach((tile, column) => place(tile, column, current));
    if (!dialog.open) dialog.showModal();
  };
  buttons.forEach((button, index) => button.addEventListener("click", () => open(index)));
  for (const button of dialog.querySelectorAll("[data-step]")) {
    button.addEventListener("click", () => open(current + Number(button.dataset.step)));
  }
  dialog.querySelector("[data-close]").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  dialog.addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft") open(current - 1);
    if (event.key === "ArrowRight") open(current + 1);
  });
  dialog.addEventListener("close", () => buttons[current].focus());
}

// Tables that a click on a heading sorts: numbers by value, then words.
const value = (row, column) => {
  const text = row.cells[column].textContent.trim(), number = Number(text.replace(/,/g, "").replace("−", "-"));
  return text === "–" ? NaN : Number.isNaN(number) ? text : number;
};
const compare = (a, b) => (typeof a === "number" && typeof b === "number"
  ? (Number.isNaN(a) ? 1 : Number.isNaN(b) ? -1 : a - b)
  : String(a).localeCompare(String(b)));
for (const table of document.querySelectorAll("table.sortable")) {
  const headings = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  headings.forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      const down = heading.getAttribute("aria-sort") === "ascending";
      for (const other of headings) other.removeAttribute("aria-sort");
      heading.setAttribute("aria-sort", down ? "descending" : "ascending");
      const rows = [...body.rows].sort((a, b) => compare(value(a, column), value(b, column)));
      body.append(...(down ? rows.reverse() : rows));
    });
  });
}
