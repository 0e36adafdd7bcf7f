"use strict";
// Whole volumes of the pair that is open, by niivue, which is unpacked when it is first wanted.
window.volumeViewer = (() => {
  const LIMITS = { fixed: [0, 1], warped: [0, 1], jacobian: [0, 2] };
  const COLOURS = { jacobian: "determinant", error: "error" };
  // of Okabe and Ito, which all can tell apart
  const LABELS = ["#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7"];
  let shown = null;

  async function load() {
    if (window.niivue) return;
    const packed = Uint8Array.from(atob(document.getElementById("library").textContent), (letter) => letter.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    const script = document.createElement("script");
    script.textContent = await new Response(stream).text();
    document.head.append(script);
  }

  // The colours of a gradient of the page, as a table of niivue.
  function colours(text) {
    const numbers = text.match(/\d+/g).map(Number);
    const count = numbers.length / 3;
    const channel = (first) => numbers.filter((_, index) => index % 3 === first);
    const I = Array.from({ length: count }, (_, index) => Math.round((255 * index) / (count - 1)));
    return { R: channel(0), G: channel(1), B: channel(2), A: I.map(() => 255), I };
  }

  // One colour for each id, and none for the background.
  function labelColours() {
    const ids = Array.from({ length: 256 }, (_, id) => id);
    const channel = (place) => ids.map((id) => (id ? parseInt(LABELS[id % LABELS.length].slice(place, place + 2), 16) : 0));
    return { R: channel(1), G: channel(3), B: channel(5), A: ids.map((id) => (id ? 255 : 0)), I: ids };
  }

  async function unpack(pair, key, opacity) {
    const [cal_min, cal_max] = LIMITS[key] ?? [];
    const base64 = document.getElementById(`volume-${pair.dataset.pair}-${key}`).textContent;
    const image = await niivue.NVImage.loadFromBase64({ base64, name: `${key}.nii.gz`, colormap: COLOURS[key] ?? "gray", opacity, cal_min, cal_max });
    if (key.startsWith("label")) image.setColormapLabel(labelColours());
    return image;
  }

  async function start(pair, section) {
    await load();
    section.querySelector(".opened").hidden = false;
    section.querySelector(".load").hidden = true;
    const viewer = new niivue.Niivue({ logLevel: "error", dragAndDropEnabled: false, backColor: [0, 0, 0, 1], crosshairWidth: 0.5 });
    shown = viewer;
    await viewer.attachToCanvas(section.querySelector("canvas"));
    viewer.addColormap("determinant", colours(section.dataset.determinant));
    viewer.addColormap("error", colours(section.dataset.error));
    viewer.setSliceType(niivue.SLICE_TYPE.MULTIPLANAR);
    const layer = section.querySelector("[name=layer]");
    const opacity = section.querySelector("[name=opacity]");
    const part = () => Number(opacity.value) / 100;
    let turn = 0; // the last choice counts, whichever volume is unpacked first
    async function show() {
      const mine = ++turn;
      const keys = [section.dataset.base, layer.value].filter(Boolean);
      const images = await Promise.all(keys.map((key, index) => unpack(pair, key, index ? part() : 1)));
      if (mine !== turn || shown !== viewer) return;
      while (viewer.volumes.length) viewer.removeVolume(viewer.volumes[0]);
      for (const image of images) viewer.addVolume(image);
      section.dataset.shown = keys.join(" ");
    }
    layer.addEventListener("change", show);
    opacity.addEventListener("input", () => viewer.volumes.length > 1 && viewer.setOpacity(1, part()));
    section.querySelector("[name=view]").addEventListener("change", (event) => viewer.setSliceType(Number(event.target.value)));
    await show();
  }

  async function open(pair, section) {
    const state = section.querySelector(".state");
    state.textContent = "loading";
    try {
      await start(pair, section);
      state.textContent = "";
    } catch (error) {
      section.querySelector(".opened").hidden = true;
      state.textContent = `This browser cannot show the volumes (${error.message ?? error}).`;
    }
  }

  return {
    prepare(pair) {
      const section = pair.querySelector(".viewer");
      section?.querySelector(".load").addEventListener("click", () => open(pair, section));
    },
    close() {
      shown?.gl?.getExtension("WEBGL_lose_context")?.loseContext(); // a browser has only some of them
      shown = null;
    },
  };
})();
