/* The cases of a report: a list to sort, and a viewer of the volumes in the files beside the page. */
(() => {
  "use strict";
  const data = JSON.parse(document.getElementById("case-data").textContent);
  const at = (id) => document.getElementById(id);
  const state = { row: 0, file: null, sort: 1, down: false, layer: "prediction" };
  const ERRORS = [["missed", "#FFB000"], ["surplus", "#FF3B6B"], ["other class", "#7C8CFF"]];

  // The list ---------------------------------------------------------------------------------

  function element(tag, text = "", attributes = {}) {
    const made = document.createElement(tag);
    made.textContent = text;
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    return made;
  }

  const percent = (value) => (value === null ? "–" : (100 * value).toFixed(1));

  /* Title, value to sort by and text of each column, for a case by its index. */
  function columns() {
    const { dsc, estimates } = data.rows[state.row];
    const found = [
      ["Case", (i) => data.cases[i], (i) => data.cases[i]],
      ["DSC %", (i) => dsc[i].at(-1), (i) => percent(dsc[i].at(-1))],
    ];
    if (data.estimated) {
      const text = (i) => {
        if (!estimates[i].length) return "–";
        const [value, low, high] = estimates[i].map((x) => (100 * x).toFixed(0));
        return `${value} (${low}–${high})`;
      };
      found.push(["Estimated", (i) => estimates[i][0] ?? null, text]);
    }
    if (data.classes.length > 1 && data.classes.length <= 3) {
      data.classes.forEach((name, k) => {
        found.push([name, (i) => dsc[i][k], (i) => percent(dsc[i][k])]);
      });
    }
    return found;
  }

  function list() {
    const found = columns();
    state.sort = Math.min(state.sort, found.length - 1);
    const value = found[state.sort][1];
    const order = data.cases.map((_, i) => i).sort((i, j) => {
      const [a, b] = [value(i), value(j)];
      if (a === null || b === null) return (a === null) - (b === null); // always last
      return (a < b ? -1 : a > b ? 1 : 0) * (state.down ? -1 : 1);
    });
    const head = element("tr");
    found.forEach(([title], k) => {
      const sorted = k === state.sort ? (state.down ? "descending" : "ascending") : "none";
      const cell = element("th", "", { scope: "col", "aria-sort": sorted });
      const button = cell.appendChild(element("button", title, { type: "button" }));
      button.onclick = () => {
        state.down = k === state.sort && !state.down;
        state.sort = k;
        list();
      };
      head.append(cell);
    });
    at("case-head").replaceChildren(head);
    at("case-body").replaceChildren(...order.map((i) => {
      const line = element("tr", "", { "data-case": data.cases[i] });
      found.forEach(([, , text]) => line.append(element("td", text(i))));
      const file = data.files[i];
      if (file === null) return line;
      line.className = file === state.file ? "open" : "link";
      const button = element("button", data.cases[i], { type: "button" });
      line.firstChild.replaceChildren(button);
      line.onclick = () => open(file);
      return line;
    }));
    at("case-seed").textContent = data.rows[state.row].seed;
    at("case-row").value = state.row;
  }

  function choose(row) {
    state.row = row;
    list();
    if (state.file !== null) open(state.file);
  }

  data.rows.forEach(({ label }, i) => at("case-row").append(element("option", label, { value: i })));
  at("case-row").onchange = (event) => choose(Number(event.target.value));
  for (const cell of document.querySelectorAll("#scores td:first-child")) {
    const row = data.rows.findIndex(({ label }) => label === cell.textContent);
    if (row < 0) continue;
    const button = element("button", cell.textContent, { type: "button", title: "Show its cases" });
    button.onclick = () => {
      choose(row);
      at("cases").scrollIntoView();
    };
    cell.replaceChildren(button);
  }
  list();

  // The viewer -------------------------------------------------------------------------------

  const stage = at("stage");
  if (!stage) return;
  const files = {}; // volumes by number of the file
  let nv = null; // of NiiVue
  let shown = null; // images of what is open
  let turn = Promise.resolve(); // one opening after another

  window.mijaxCase = (number, volumes) => { files[number] = volumes; };

  function run(source) {
    return new Promise((resolve, reject) => {
      const script = element("script", "", { src: source });
      script.onload = resolve;
      script.onerror = () => reject(new Error(
        `${source} cannot be read. It belongs into the folder of this page.`));
      document.head.append(script);
    });
  }

  async function start() {
    if (!document.createElement("canvas").getContext("webgl2")) {
      throw new Error("This browser has no WebGL 2, which the viewer needs. The pictures below are "
        + "of the best, the median and the worst case.");
    }
    await run("viewer/niivue.js");
    const made = new niivue.Niivue({
      isRadiologicalConvention: true, // as in the pictures: the patient's right is on the left
      show3Dcrosshair: false,
      multiplanarShowRender: 0,
      showAllOrientationMarkers: true,
      fontColor: [0.9, 0.9, 0.9, 1],
      crosshairColor: [1, 1, 1, 0.6],
      crosshairWidth: 0.6,
      crosshairWidthUnit: "percent",
      crosshairGap: 6,
      dragAndDropEnabled: false,
      logLevel: "error",
      loadingText: "",
    });
    made.onLocationChange = tell;
    await made.attachToCanvas(at("canvas"));
    nv = made;
    arrange();
    window.mijaxViewer = nv; // for the console
  }

  /* One plane, or the plane of the slices at large and the two others beside it. */
  function arrange() {
    const chosen = at("plane").value;
    const others = [0, 1, 2].filter((plane) => plane !== data.plane);
    nv.setCustomLayout(chosen ? [{ sliceType: Number(chosen), position: [0, 0, 1, 1] }] : [
      { sliceType: data.plane, position: [0, 0, 0.62, 1] },
      { sliceType: others[0], position: [0.62, 0, 0.38, 0.5] },
      { sliceType: others[1], position: [0.62, 0.5, 0.38, 0.5] },
    ]);
  }

  function open(file) {
    state.file = file;
    list();
    stage.hidden = false;
    turn = turn.then(show).catch((error) => {
      at("case-note").textContent = error.message;
      stage.hidden = true;
    });
  }

  async function show() {
    const { file, row } = state;
    if (!nv) await start();
    if (!files[file]) await run(`viewer/case_${file}.js`);
    const volumes = files[file];
    const image = (base64, name) => niivue.NVImage.loadFromBase64({ base64, name: `${name}.nii.gz` });
    const [labels, doubt] = volumes.rows[row] ?? [null, null];
    const place = shown && shown.file === file ? nv.frac2mm(nv.scene.crosshairPos, 0, true)
      : volumes.centre;
    shown = {
      file,
      volumes,
      scan: await image(volumes.scan, "scan"),
      annotation: await image(volumes.annotation, "annotation"),
      prediction: labels && await image(labels, "prediction"),
      disagreement: doubt && await image(doubt, "disagreement"),
    };
    shown.errors = labels && like(shown.annotation, errors(shown));
    shown.outline = like(shown.annotation, outline(shown.annotation, volumes.across));
    paint();
    nv.scene.crosshairPos = nv.mm2frac(place.slice(0, 3), 0, true);
    nv.createOnLocationChange();
    nv.drawScene();
    at("case-name").textContent = `${data.cases[data.files.indexOf(file)]} · ${data.rows[row].label}`;
    at("case-note").textContent = "";
    stage.dataset.open = `${file} ${row}`;
  }

  /* An image on the grid of another. */
  function like(image, values) {
    const made = image.clone();
    made.img = values;
    return made;
  }

  function errors({ annotation, prediction }) {
    return prediction.img.map((found, i) => {
      const truth = annotation.img[i];
      return found === truth ? 0 : found === 0 ? 1 : truth === 0 ? 2 : 3;
    });
  }

  /* Voxels of a label map that have a lower one beside them in the plane of the slices: of two
     structures that touch, only one has the line. */
  function outline({ img, hdr }, across) {
    const size = hdr.dims.slice(1, 4);
    const [nx, ny] = size;
    const sides = [1, nx, nx * ny];
    return img.map((label, i) => {
      if (label === 0) return 0;
      const place = [i % nx, Math.floor(i / nx) % ny, Math.floor(i / (nx * ny))];
      const edge = [0, 1, 2].some((axis) => axis !== across && (
        (place[axis] > 0 && img[i - sides[axis]] < label)
        || (place[axis] < size[axis] - 1 && img[i + sides[axis]] < label)));
      return edge ? 1 : 0;
    });
  }

  function lookup(colours) {
    const parts = ["#000000", ...colours].map((c) => [1, 3, 5].map((k) => parseInt(c.slice(k, k + 2), 16)));
    const [R, G, B] = [0, 1, 2].map((k) => parts.map((part) => part[k]));
    return { R, G, B, A: R.map((_, i) => (i ? 255 : 0)), I: R.map((_, i) => i), labels: R.map(String) };
  }

  function paint() {
    const opacity = Number(at("opacity").value) / 100;
    const layer = shown[state.layer];
    const volumes = [shown.scan];
    if (layer) {
      layer.opacity = opacity;
      if (state.layer === "disagreement") {
        Object.assign(layer, { colormap: "inferno", cal_min: 5, cal_max: 100, colormapType: 1 });
      } else {
        layer.setColormapLabel(lookup(state.layer === "errors" ? ERRORS.map((e) => e[1]) : data.colours));
      }
      volumes.push(layer);
    }
    if (at("outline").checked) {
      shown.outline.setColormapLabel(lookup(["#FFFFFF"]));
      volumes.push(shown.outline);
    }
    nv.volumes = volumes;
    nv.setVolume(shown.scan, 0); // once for all of them: it draws anew
    legend();
    nv.drawScene();
  }

  function legend() {
    const pairs = state.layer === "errors" ? ERRORS
      : state.layer === "disagreement" ? [["5 %", "#1B0C41"], ["50 %", "#BB3754"], ["100 %", "#FCFFA4"]]
      : data.classes.map((name, k) => [name, data.colours[k]]);
    const all = at("outline").checked ? [...pairs, ["outline of the annotation", "#FFFFFF"]] : pairs;
    at("legend").replaceChildren(...all.map(([name, colour]) => {
      const item = element("span", name);
      item.prepend(element("i", "", { style: `background: ${colour}` }));
      return item;
    }));
  }

  /* Says what lies under the crosshair. */
  function tell({ mm }) {
    if (!shown) return;
    const { volumes, scan } = shown;
    const [i, j, k] = volumes.to_voxel.slice(0, 3).map((line) => Math.round(
      line[0] * mm[0] + line[1] * mm[1] + line[2] * mm[2] + line[3]));
    const [nx, ny, nz] = scan.hdr.dims.slice(1, 4);
    if (Math.min(i, j, k) < 0 || i >= nx || j >= ny || k >= nz) return;
    const place = i + nx * (j + ny * k);
    const name = (image) => (image ? ["background", ...data.classes][image.img[place]] : "–");
    const voxel = [i, j, k].map((x, axis) => x + volumes.start[axis]);
    const value = scan.hdr.scl_slope * scan.img[place] + scan.hdr.scl_inter;
    at("readout").textContent = `voxel ${voxel.join(", ")} · scan ${value.toPrecision(3)} · `
      + `annotation ${name(shown.annotation)} · prediction ${name(shown.prediction)} · `
      + `disagreement ${shown.disagreement ? `${shown.disagreement.img[place]} %` : "–"}`;
  }

  for (const button of document.querySelectorAll("input[name=layer]")) {
    button.onchange = () => { state.layer = button.value; if (shown) paint(); };
  }
  at("outline").onchange = () => { if (shown) paint(); };
  at("opacity").oninput = () => { if (shown) paint(); };
  at("plane").onchange = () => { if (nv) arrange(); };
  window.addEventListener("beforeprint", () => { // a printer sees no WebGL
    if (!shown) return;
    nv.drawScene();
    at("printed").src = at("canvas").toDataURL();
  });
  // The worst case opens when it comes into sight, so that the page itself opens quickly.
  const first = document.querySelector("#case-body tr.link");
  const observer = new IntersectionObserver((entries) => {
    if (!entries.some((entry) => entry.isIntersecting)) return;
    observer.disconnect();
    if (state.file === null && first) first.click();
  });
  window.addEventListener("load", () => observer.observe(at("sight")));
})();
