import * as ort from "onnxruntime-web";

const TEMPLATE = 112, SEARCH = 224, NEAR = 2, WIDE = 4, WINDOW = 0.25;  // "sizes" of graphs.json, and vltrack's window

export class Tracker {
  static async load(folder) {
    const manifest = await (await fetch(`${folder}/graphs.json`)).json(), tracker = new Tracker(), sessions = {};
    const weights = new Uint8Array(await (await fetch(`${folder}/weights.bin`)).arrayBuffer());
    for (const call of ["start_bbox", "step_bbox"])
      for (const name of manifest.calls[call])
        sessions[name] ??= await ort.InferenceSession.create(`${folder}/${name}.onnx`, {
          externalData: [{ path: "weights.bin", data: weights }],
        });
    return Object.assign(tracker, { manifest, sessions, tensors: {} });
  }

  async run(call) {  // the graphs of a call, one after the other; tensors are read and written by name
    for (const name of this.manifest.calls[call]) {
      const session = this.sessions[name];
      const feed = Object.fromEntries(session.inputNames.map((input) => [input, this.tensors[input]]));
      Object.assign(this.tensors, await session.run(feed));
      const keep = this.tensors["selection.keep_BN"];  // LiteTrack: one graph of a step selects search tokens
      if (keep) {
        const order = [...keep.data.keys()].filter((n) => keep.data[n]).map(BigInt);
        this.tensors["selection.order_BR"] = new ort.Tensor("int64", BigInt64Array.from(order), [1, order.length]);
      }
    }
  }

  async init(frame, box) {  // frame: what drawImage takes; box: { x, y, w, h } in its pixels
    for (const [name, factor, size] of [["template", NEAR, TEMPLATE], ["context", WIDE, SEARCH]]) {
      const crop = around(box, factor), { x, y, w, h } = box, { left, top, side } = crop;
      this.tensors[name] = cut(frame, crop, size);
      const inside = [(x + w / 2 - left) / side, (y + h / 2 - top) / side, w / side, h / side];
      this.tensors[`${name}_box`] = new ort.Tensor("float32", Float32Array.from(inside), [1, 4]);
    }
    await this.run("start_bbox");
    this.box = box;
  }

  async update(frame) {
    const crop = around(this.box, WIDE);
    this.tensors.search = cut(frame, crop, SEARCH);
    await this.run("step_bbox");
    return (this.box = choose(this.tensors, crop));
  }
}

function around({ x, y, w, h }, factor) {
  const side = Math.ceil(Math.sqrt(w * h) * factor);
  return { left: x + w / 2 - side / 2, top: y + h / 2 - side / 2, side };
}

function cut(frame, { left, top, side }, size) {
  const context = new OffscreenCanvas(size, size).getContext("2d"), scale = size / side;
  context.fillStyle = "gray";  // outside of the frame; vltrack takes the frame's mean color
  context.fillRect(0, 0, size, size);
  context.setTransform(scale, 0, 0, scale, -left * scale, -top * scale);
  context.drawImage(frame, 0, 0);
  const { data } = context.getImageData(0, 0, size, size);
  return new ort.Tensor("uint8", Uint8Array.from(data.filter((_, n) => n % 4 < 3)), [1, size, size, 3]);
}

function choose(tensors, { left, top, side }) {  // the cell with the best score, near the center preferred
  const center = tensors.center_BSS, presence = tensors.presence_BSS.data, cells = center.dims[1];
  const hann = (n) => 0.5 - 0.5 * Math.cos((2 * Math.PI * (n + 1)) / (cells + 1));
  const ranked = center.data.map(
    (score, n) => (1 - WINDOW) * score * presence[n] + WINDOW * hann(Math.floor(n / cells)) * hann(n % cells),
  );
  const best = ranked.indexOf(Math.max(...ranked));
  const [cx, cy, w, h] = tensors.boxes_BSS4.data.slice(4 * best, 4 * best + 4);
  return { x: left + (cx - w / 2) * side, y: top + (cy - h / 2) * side, w: w * side, h: h * side };
}
