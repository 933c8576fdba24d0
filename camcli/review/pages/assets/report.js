"use strict";
// Every text of the data goes through textContent, never through innerHTML: names may be hostile.
const data = JSON.parse(document.getElementById("data").textContent);
const PAGE_SIZE = 200;
const find = (id) => document.getElementById(id);
const state = { query: "", facets: {}, sort: "", page: 0, hidden: new Set(), open: -1, only: -1 };
let shown = [];

function create(tag, properties, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

// ---- pictures

function createBoxes(item, tile) {
  const names = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(names, "svg");
  svg.setAttribute("viewBox", `0 0 ${item.width} ${item.height}`);
  svg.setAttribute("preserveAspectRatio", "none");
  for (const [kind, boxes] of [["truth", item.truth || []], ["found", tile.boxes || []]]) {
    for (const [x1, y1, x2, y2] of boxes) {
      const rect = document.createElementNS(names, "rect");
      const place = { x: x1, y: y1, width: x2 - x1, height: y2 - y1, class: kind };
      for (const [key, value] of Object.entries(place)) rect.setAttribute(key, value);
      svg.append(rect);
    }
  }
  return svg;
}

function createMap(item, tile) {
  const [left, top, right, bottom] = tile.view || [0, 0, item.width, item.height];
  const image = create("img", { className: "map", alt: "", src: `data:image/png;base64,${tile.map}` });
  const percent = (value, whole) => `${(100 * value) / whole}%`;
  image.style.left = percent(left, item.width);
  image.style.top = percent(top, item.height);
  image.style.width = percent(right - left, item.width);
  image.style.height = percent(bottom - top, item.height);
  return image;
}

function createTile(item, tile) {
  const frame = create("div", { className: "frame" });
  const column = data.columns[tile.column] || "";
  const source = tile.picture || (item.thumbnail && `data:image/webp;base64,${item.thumbnail}`) || item.photo;
  if (!tile.picture) frame.style.aspectRatio = `${item.width} / ${item.height}`;
  if (source) {
    const alt = `${column}: ${tile.note || item.caption}, ${item.name}`;
    frame.append(create("img", { className: "photo", alt, loading: "lazy", decoding: "async", src: source }));
  }
  if (!tile.picture && tile.map) frame.append(createMap(item, tile));
  if (!tile.picture && (tile.boxes || item.truth)) frame.append(createBoxes(item, tile));
  if (tile.status) frame.append(create("div", { className: "status", textContent: tile.status }));
  const text = [column, tile.note].filter(Boolean).join(" · ");
  return create("figure", { className: tile.picture ? "wide" : "" }, frame, create("figcaption", { textContent: text, title: text }));
}

// A browser enlarges a small map in coarse steps, so the large view enlarges it by itself.
function enlargeMap(image) {
  const [width, height, factor] = [image.naturalWidth, image.naturalHeight, 8];
  if (!width || width * factor > 512) return;
  const small = create("canvas", { width, height }).getContext("2d");
  small.drawImage(image, 0, 0);
  const values = small.getImageData(0, 0, width, height).data;
  const read = (x, y) => values[4 * (Math.min(Math.max(y, 0), height - 1) * width + Math.min(Math.max(x, 0), width - 1))];
  const canvas = create("canvas", { width: width * factor, height: height * factor });
  const result = new ImageData(canvas.width, canvas.height);
  for (let row = 0; row < canvas.height; row += 1) {
    const y = (row + 0.5) / factor - 0.5;
    const [top, b] = [Math.floor(y), y - Math.floor(y)];
    for (let column = 0; column < canvas.width; column += 1) {
      const x = (column + 0.5) / factor - 0.5;
      const [left, a] = [Math.floor(x), x - Math.floor(x)];
      const value = (1 - b) * ((1 - a) * read(left, top) + a * read(left + 1, top))
        + b * ((1 - a) * read(left, top + 1) + a * read(left + 1, top + 1));
      result.data.set([value, value, value, 255], 4 * (row * canvas.width + column));
    }
  }
  canvas.getContext("2d").putImageData(result, 0, 0);
  image.src = canvas.toDataURL();
}

function listTiles(item) {
  return (item.tiles || []).filter((tile) => !state.hidden.has(tile.column));
}

function createCard(item) {
  const card = create("article", { tabIndex: 0 });
  if (item.error !== undefined) {
    card.className = "failed";
    card.append(create("p", { className: "caption", textContent: item.error }));
  } else {
    if (item.mark) card.className = item.mark;
    card.append(create("div", { className: "tiles" }, ...listTiles(item).map((tile) => createTile(item, tile))));
    card.append(create("p", { className: "caption", textContent: item.caption, title: item.caption }));
    card.onclick = () => openLarge(shown.indexOf(item));
    card.onkeydown = (event) => {
      if (event.key !== "Enter") return;
      event.preventDefault(); // else the same key presses the button that gets the focus
      openLarge(shown.indexOf(item));
    };
  }
  card.append(create("p", { className: "name", textContent: item.name, title: item.name }));
  return card;
}

// ---- filter, sort and pages

function matches(item) {
  const words = state.query.toLowerCase().split(/\s+/).filter(Boolean);
  const text = `${item.name} ${item.caption || ""} ${item.error || ""}`.toLowerCase();
  return words.every((word) => text.includes(word))
    && Object.entries(state.facets).every(([n, value]) => !value || (item.facets || [])[n] === value);
}

function sortItems(items) {
  const [number, direction] = state.sort.split(":");
  if (!direction) return items;
  const sign = direction === "down" ? -1 : 1;
  const read = (item) => (item.values || [])[number] ?? null;
  return [...items].sort((one, other) => {
    const [a, b] = [read(one), read(other)];
    if (a === null || b === null) return (a === null) - (b === null);
    return sign * (a - b);
  });
}

function update({ keepPage = false } = {}) {
  shown = sortItems(data.items.filter(matches));
  const pageCount = Math.max(1, Math.ceil(shown.length / PAGE_SIZE));
  state.page = keepPage ? Math.min(state.page, pageCount - 1) : 0;
  const start = state.page * PAGE_SIZE;
  find("items").replaceChildren(...shown.slice(start, start + PAGE_SIZE).map(createCard));
  find("empty").hidden = shown.length > 0 || data.items.length === 0;
  const all = shown.length === data.items.length ? "" : ` of ${data.items.length}`;
  find("counts").textContent = data.items.length ? `${shown.length}${all} shown · ${data.about}` : data.about;
  for (const nav of document.querySelectorAll(".pages")) fillPages(nav, pageCount);
  saveState();
}

function fillPages(nav, pageCount) {
  if (pageCount === 1) return nav.replaceChildren();
  const go = (page) => () => { state.page = page; update({ keepPage: true }); window.scrollTo(0, 0); };
  const button = (text, page) => create("button", {
    type: "button", textContent: text, onclick: go(page), disabled: page < 0 || page >= pageCount,
  });
  const text = `page ${state.page + 1} of ${pageCount}`;
  return nav.replaceChildren(button("← before", state.page - 1), text, button("after →", state.page + 1));
}

// ---- looks: one filter colours every map of the page

function updateLooks() {
  const filter = find("color");
  const table = data.colormaps[find("colormap").value] || Object.values(data.colormaps)[0];
  ["feFuncR", "feFuncG", "feFuncB"].forEach((name, n) => {
    filter.querySelector(name).setAttribute("tableValues", table.map((color) => color[n]).join(" "));
  });
  const [opacity, threshold] = [Number(find("opacity").value), Number(find("threshold").value)];
  const fade = find("fade").checked;
  const levels = Array.from({ length: 256 }, (_, n) => n / 255)
    .map((value) => (value < threshold ? 0 : opacity * (fade ? value : 1)).toFixed(3));
  filter.querySelector("feFuncA").setAttribute("tableValues", levels.join(" "));
  find("threshold-value").textContent = threshold.toFixed(2);
  document.documentElement.style.setProperty("--tile", `${find("size").value}px`);
  document.body.classList.toggle("no-boxes", !find("boxes").checked);
}

// ---- the large view

function openLarge(index) {
  const item = shown[index];
  if (!item || item.error !== undefined) return;
  state.open = index;
  const tiles = listTiles(item).filter((tile, n) => state.only < 0 || n === state.only);
  find("large-title").textContent = `${item.caption} — ${item.name}`;
  find("large-place").textContent = `${index + 1} of ${shown.length}`;
  find("large-tiles").replaceChildren(...tiles.map((tile) => createTile(item, tile)));
  for (const image of find("large-tiles").querySelectorAll("img.map")) {
    image.decode().then(() => enlargeMap(image), () => {});
  }
  const room = [Math.min(0.94 * innerWidth, (0.97 * innerWidth) / tiles.length - 14), innerHeight - 190];
  for (const [n, figure] of [...find("large-tiles").children].entries()) {
    const ratio = tiles[n].picture ? null : item.width / item.height;
    figure.style.width = ratio ? `${Math.max(200, Math.min(room[0], room[1] * ratio))}px` : "94vw";
  }
  const details = (item.details || []).concat(
    data.values.map((name, n) => [name, (item.values || [])[n]]).filter(([, value]) => value !== null && value !== undefined),
  );
  find("large-details").replaceChildren(...details.flatMap(([name, value]) => [
    create("dt", { textContent: name }),
    create("dd", { textContent: typeof value === "number" ? String(Math.round(value * 1e4) / 1e4) : value }),
  ]));
  if (!find("large").open) find("large").showModal();
  saveState();
}

function moveLarge(step) {
  for (let index = state.open + step; index >= 0 && index < shown.length; index += step) {
    if (shown[index].error === undefined) {
      state.page = Math.floor(index / PAGE_SIZE);
      return openLarge(index);
    }
  }
  return undefined;
}

function closeLarge() {
  state.open = -1;
  state.only = -1;
  update({ keepPage: true });
}

function pressKey(event) {
  if (!find("large").open) {
    if (event.key === "/" && event.target.tagName !== "INPUT") { find("query").focus(); event.preventDefault(); }
    return;
  }
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "ArrowRight") moveLarge(1);
  else if (event.key === "ArrowLeft") moveLarge(-1);
  else if (event.key === " ") document.body.classList.toggle("no-maps");
  else if (event.key === "b") { find("boxes").checked = !find("boxes").checked; updateLooks(); }
  else if (/^[0-9]$/.test(event.key)) { state.only = Number(event.key) - 1; openLarge(state.open); }
  else return;
  event.preventDefault();
}

// ---- the state in the address, so that a link or a reload shows the same

function saveState() {
  const entries = { q: state.query, sort: state.sort, page: state.page || "", open: state.open < 0 ? "" : state.open };
  for (const [n, value] of Object.entries(state.facets)) entries[`f${n}`] = value;
  entries.hide = [...state.hidden].join(",");
  const text = new URLSearchParams(Object.entries(entries).filter(([, value]) => value !== "")).toString();
  try { history.replaceState(null, "", `#${text}`); } catch { /* some browsers limit how often */ }
}

function loadState() {
  const saved = new URLSearchParams(location.hash.slice(1));
  state.query = find("query").value = saved.get("q") || "";
  if ([...find("sort").options].some((option) => option.value === saved.get("sort"))) state.sort = saved.get("sort");
  find("sort").value = state.sort;
  data.facets.forEach((_, n) => { state.facets[n] = saved.get(`f${n}`) || ""; });
  for (const select of find("facets").querySelectorAll("select")) select.value = state.facets[select.dataset.facet];
  state.hidden = new Set((saved.get("hide") || "").split(",").filter(Boolean).map(Number));
  for (const box of find("columns").querySelectorAll("input")) box.checked = !state.hidden.has(Number(box.value));
  state.page = Number(saved.get("page")) || 0;
  return saved.has("open") ? Number(saved.get("open")) : -1;
}
