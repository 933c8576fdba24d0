// Builds the controls from the data, and starts the page.

function createFacets() {
  data.facets.forEach((facet, n) => {
    const counts = new Map();
    for (const item of data.items) {
      const value = (item.facets || [])[n];
      if (value) counts.set(value, (counts.get(value) || 0) + 1);
    }
    if (counts.size < 2) return;
    const select = create("select", { onchange: () => { state.facets[n] = select.value; update(); } });
    select.dataset.facet = n;
    select.append(create("option", { value: "", textContent: "all" }));
    const order = [...counts].sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1));
    for (const [value, count] of order) select.append(create("option", { value, textContent: `${value} (${count})` }));
    find("facets").append(create("label", {}, facet, select));
  });
}

function createSorts() {
  find("sort").append(create("option", { value: "", textContent: "as in the run" }));
  data.values.forEach((name, n) => {
    if (!data.items.some((item) => ((item.values || [])[n] ?? null) !== null)) return;
    find("sort").append(create("option", { value: `${n}:up`, textContent: `${name}, lowest first` }));
    find("sort").append(create("option", { value: `${n}:down`, textContent: `${name}, highest first` }));
  });
}

function createColumns() {
  if (data.columns.length < 2) return;
  data.columns.forEach((name, n) => {
    const box = create("input", { type: "checkbox", checked: true, value: n });
    box.onchange = () => { state.hidden[box.checked ? "delete" : "add"](n); update({ keepPage: true }); };
    find("columns").append(create("label", {}, box, name));
  });
}

function createTable(rows) {
  const [head, ...body] = rows;
  const line = (tag) => (cells) => create("tr", {}, ...cells.map((text) => create(tag, { textContent: text })));
  const table = create("table", {}, create("thead", {}, line("th")(head)), create("tbody", {}, ...body.map(line("td"))));
  return create("div", { className: "scroll" }, table);
}

function createSections() {
  find("notes").append(...data.notes.map((text) => create("p", { textContent: text })));
  for (const [title, rows] of data.tables) {
    find("summary").append(create("h2", { textContent: title }), createTable(rows));
  }
  if (data.charts.length) {
    const images = data.charts.map(([alt, source]) => create("img", { alt, title: alt, src: source, loading: "lazy" }));
    find("summary").append(create("div", { className: "charts" }, ...images));
  }
  for (const [title, rows] of data.folded) {
    if (rows.length < 2) continue;
    find("about").append(create("details", {}, create("summary", { textContent: title }), createTable(rows)));
  }
}

function start() {
  createFacets();
  createSorts();
  createColumns();
  createSections();
  for (const name of Object.keys(data.colormaps)) find("colormap").append(create("option", { value: name, textContent: name }));
  const hasMaps = data.items.some((item) => (item.tiles || []).some((tile) => tile.map));
  for (const id of ["colormap", "opacity", "threshold", "fade"]) find(id).parentElement.hidden = !hasMaps;
  const hasBoxes = data.items.some((item) => (item.tiles || []).some((tile) => tile.boxes && !tile.picture));
  find("boxes").parentElement.hidden = !hasBoxes;
  find("tools").hidden = data.items.length === 0;
  const open = loadState();
  let waiting = 0;
  find("query").oninput = () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => { state.query = find("query").value; update(); }, 120);
  };
  find("sort").onchange = () => { state.sort = find("sort").value; update(); };
  for (const id of ["colormap", "opacity", "threshold", "fade", "boxes", "size"]) find(id).oninput = updateLooks;
  find("tools").onsubmit = (event) => event.preventDefault();
  find("close").onclick = () => find("large").close();
  find("large").onclose = closeLarge;
  document.addEventListener("keydown", pressKey);
  updateLooks();
  update({ keepPage: true });
  if (open >= 0) openLarge(open);
}

start();
