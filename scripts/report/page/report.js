"use strict";
(() => {
  const FLICKER = 450; // ms for each image
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  let timer = 0;

  // One pair: which image lies above the fixed one, and how the two are compared.
  function prepare(pair) {
    const chosen = (name) => pair.querySelector(`input[name^="${name}-"]:checked`)?.value;
    const range = pair.querySelector("input[type=range]");
    const stages = all(".images", pair);

    function update() {
      const mode = chosen("mode") ?? "swipe";
      clearInterval(timer);
      pair.classList.remove("swipe", "flicker", "difference", "away");
      pair.classList.add(mode);
      for (const image of all(".other", pair)) image.hidden = image.dataset.layer !== (chosen("other") ?? image.dataset.layer);
      if (range) range.disabled = mode !== "swipe";
      else for (const line of all(".border", pair)) line.hidden = true;
      if (mode === "flicker") timer = setInterval(() => pair.classList.toggle("away"), FLICKER);
    }

    function cut(percent) {
      const value = Math.min(100, Math.max(0, percent));
      range.value = value;
      pair.style.setProperty("--cut", `${value}%`);
    }

    for (const input of all("input[type=radio]", pair)) input.addEventListener("change", update);
    for (const input of all("input[type=checkbox]", pair)) {
      input.addEventListener("change", () => {
        for (const image of all(`.outline[data-layer="${input.dataset.layer}"]`, pair)) image.hidden = !input.checked;
      });
    }
    if (range) {
      range.addEventListener("input", () => cut(Number(range.value)));
      for (const stage of stages) {
        const move = (event) => {
          const box = stage.getBoundingClientRect();
          if (pair.classList.contains("swipe")) cut((100 * (event.clientX - box.left)) / box.width);
        };
        stage.addEventListener("pointerdown", (event) => {
          stage.setPointerCapture(event.pointerId);
          move(event);
        });
        stage.addEventListener("pointermove", (event) => event.buttons && move(event));
      }
    }
    update();
    window.volumeViewer?.prepare(pair);
  }

  all("article.pair").forEach(prepare);

  const table = document.getElementById("table");
  if (!table) return;

  // The table: sorted by a click on its head, filtered by a text and by verdicts.
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const filter = document.getElementById("filter");
  const chips = all(".chip");
  const compare = new Intl.Collator("en", { numeric: true }).compare;

  function sort(head) {
    const ascending = head.getAttribute("aria-sort") !== "ascending";
    const column = head.cellIndex;
    const value = (row) => row.cells[column].dataset.value;
    const order = head.dataset.sort === "text" ? compare : (a, b) => a - b;
    rows.sort((a, b) => {
      const [x, y] = [value(a), value(b)];
      if (x === "" || y === "") return (x === "") - (y === ""); // what is not known comes last
      return ascending ? order(x, y) : order(y, x);
    });
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
    body.append(...rows);
  }

  function show() {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    const verdicts = chips.filter((chip) => chip.getAttribute("aria-pressed") === "true").map((chip) => chip.dataset.verdict);
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !(words.every((word) => text.includes(word)) && (!verdicts.length || verdicts.includes(row.dataset.verdict)));
    }
    document.getElementById("shown").value = `${visible().length} of ${rows.length}`;
  }

  const visible = () => rows.filter((row) => !row.hidden);
  for (const head of all("th[data-sort]", table)) head.firstElementChild.addEventListener("click", () => sort(head));
  filter.addEventListener("input", show);
  for (const chip of chips) {
    chip.addEventListener("click", () => {
      chip.setAttribute("aria-pressed", String(chip.getAttribute("aria-pressed") !== "true"));
      show();
    });
  }
  if (filter.value) show(); // kept by the browser when the page is loaded again

  // The pair that is opened, in a dialog; its place is kept in the address of the page.
  const dialog = document.getElementById("detail");
  const content = document.getElementById("body");
  let current = null;

  function leave() {
    clearInterval(timer);
    window.volumeViewer?.close();
  }

  function open(row) {
    const template = document.getElementById(`pair-${row.dataset.pair}`);
    leave();
    content.replaceChildren(template.content.cloneNode(true));
    const pair = content.querySelector("article");
    prepare(pair);
    current = row;
    const list = visible();
    const place = list.indexOf(row);
    document.getElementById("place").textContent = `${place + 1} of ${list.length}`;
    for (const button of all("[data-step]", dialog)) button.disabled = !list[place + Number(button.dataset.step)];
    if (!dialog.open) dialog.showModal();
    dialog.scrollTop = 0;
    pair.querySelector("h2").focus({ preventScroll: true });
    history.replaceState(null, "", `#pair-${row.dataset.pair}`);
  }

  function step(count) {
    const list = visible();
    const row = list[list.indexOf(current) + count];
    if (row) open(row);
  }

  body.addEventListener("click", (event) => {
    const row = event.target.closest("tr");
    if (row) open(row);
  });
  for (const button of all("[data-step]", dialog)) button.addEventListener("click", () => step(Number(button.dataset.step)));
  document.getElementById("close").addEventListener("click", () => dialog.close());
  document.addEventListener("keydown", (event) => {
    if (!dialog.open || event.target.matches("select") || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "n") step(1);
    if (event.key === "p") step(-1);
  });
  dialog.addEventListener("close", () => {
    leave();
    content.replaceChildren();
    history.replaceState(null, "", location.pathname + location.search);
    current?.querySelector(".open").focus();
  });
  const asked = /^#pair-(\d+)$/.exec(location.hash);
  const first = asked && rows.find((row) => row.dataset.pair === asked[1]);
  if (first) open(first);
})();
