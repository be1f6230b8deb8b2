// Before and after, one over the other: a seam to move, zoom and pan by mouse, fingers and keys.

const LARGEST = 16;
const $ = (id) => document.getElementById(id);

export class Viewer {
  constructor() {
    this.canvas = $("canvas");
    this.before = $("before");
    this.after = $("after");
    this.seam = $("seam");
    this.split = $("split");
    this.size = null;
    this.view = { scale: 1, x: 0, y: 0, fitted: true };
    this.pointers = new Map();
    this.listen();
  }

  /**
   * Show a picture, and its result where there is one.
   * `size` is that of the result; `subject` is compared: its view stays when its result arrives.
   */
  show(before, after, size, subject) {
    const known = subject === this.subject && this.size;
    if (known) this.view.scale *= this.size.width / size.width;
    this.size = size;
    this.subject = subject;
    this.both = Boolean(before && after);
    for (const [image, source] of [[this.before, before], [this.after, after]]) {
      image.hidden = !source;
      if (source && image.getAttribute("src") !== source) image.src = source;
      if (!source) image.removeAttribute("src");
      image.width = size.width;
      image.height = size.height;
    }
    this.seam.hidden = this.split.hidden = !this.both;
    $("tag-before").hidden = !before;
    $("tag-after").hidden = !after;
    if (!known || this.view.fitted) this.fit();
    else this.draw();
  }

  /** Show nothing. */
  clear() {
    this.size = this.subject = null;
    this.both = false;
    for (const image of [this.before, this.after]) {
      image.hidden = true;
      image.removeAttribute("src");
    }
    this.seam.hidden = this.split.hidden = $("tag-before").hidden = $("tag-after").hidden = true;
  }

  listen() {
    const { canvas, seam, split } = this;
    split.addEventListener("input", () => this.draw());
    canvas.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    canvas.addEventListener("pointerdown", (event) => this.down(event));
    canvas.addEventListener("pointermove", (event) => this.move(event));
    for (const kind of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(kind, (event) => this.up(event));
    }
    canvas.addEventListener("dblclick", (event) => {
      if (seam.contains(event.target)) return;
      this.view.fitted ? this.zoomTo(1, this.at(event)) : this.fit();
    });
    canvas.addEventListener("keydown", (event) => this.key(event));
    $("zoom-in").addEventListener("click", () => this.zoomBy(1.5));
    $("zoom-out").addEventListener("click", () => this.zoomBy(1 / 1.5));
    $("zoom-fit").addEventListener("click", () => this.fit());
    $("zoom-one").addEventListener("click", () => this.zoomTo(1));
    new ResizeObserver(() => (this.view.fitted ? this.fit() : this.draw())).observe(canvas);
  }

  /** Scales are CSS pixels per pixel of the result: 1:1 maps those to the screen's. */
  get unit() {
    return 1 / devicePixelRatio;
  }

  get smallest() {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    return Math.min(width / this.size.width, height / this.size.height) / this.unit;
  }

  get middle() {
    return { x: this.canvas.clientWidth / 2, y: this.canvas.clientHeight / 2 };
  }

  fit() {
    if (!this.size || !this.canvas.clientWidth) return;
    const scale = Math.min(this.smallest, LARGEST);
    Object.assign(this.view, {
      scale,
      x: this.middle.x - (this.size.width * scale * this.unit) / 2,
      y: this.middle.y - (this.size.height * scale * this.unit) / 2,
      fitted: true,
    });
    this.draw();
  }

  zoomBy(factor, at = this.middle) {
    this.zoomTo(this.view.scale * factor, at);
  }

  zoomTo(wanted, at = this.middle) {
    if (!this.size) return;
    if (this.smallest < 1 && wanted <= this.smallest) return this.fit();
    const scale = Math.min(Math.max(wanted, Math.min(this.smallest, 1)), LARGEST);
    const factor = scale / this.view.scale;
    Object.assign(this.view, {
      scale,
      x: at.x - (at.x - this.view.x) * factor,
      y: at.y - (at.y - this.view.y) * factor,
      fitted: false,
    });
    this.draw();
  }

  pan(x, y) {
    this.view.x += x;
    this.view.y += y;
    this.view.fitted = false;
    this.draw();
  }

  /** Keep a part of the picture in sight. */
  hold() {
    const { clientWidth, clientHeight } = this.canvas;
    for (const [axis, room, length] of [["x", clientWidth, this.size.width], ["y", clientHeight, this.size.height]]) {
      const shown = length * this.view.scale * this.unit;
      const [low, high] = shown <= room ? [(room - shown) / 2, (room - shown) / 2] : [room - shown, 0];
      this.view[axis] = Math.min(Math.max(this.view[axis], low), high);
    }
  }

  draw() {
    if (!this.size) return;
    this.hold();
    const { scale, x, y } = this.view;
    const shown = scale * this.unit;
    const seam = (this.split.valueAsNumber / 100) * this.canvas.clientWidth;
    for (const image of [this.before, this.after]) {
      image.style.transform = `translate(${x}px, ${y}px) scale(${shown})`;
      image.classList.toggle("sharp", scale >= 3 && image === this.after);
    }
    const hidden = this.both ? Math.max(0, this.size.width - (seam - x) / shown) : 0;
    this.before.style.clipPath = `inset(0 ${hidden}px 0 0)`;
    this.seam.style.left = `${seam}px`;
    $("zoom").textContent = `${Math.round(scale * 100)} %`;
  }

  at(event) {
    const box = this.canvas.getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top };
  }

  wheel(event) {
    event.preventDefault();
    const step = event.deltaMode === 1 ? 20 : 1;
    this.zoomBy(Math.exp((-event.deltaY * step) / 400), this.at(event));
  }

  down(event) {
    if (event.button) return;
    const onSeam = this.seam.contains(event.target);
    this.pointers.set(event.pointerId, { ...this.at(event), onSeam });
    this.canvas.setPointerCapture(event.pointerId);
    this.canvas.classList.toggle("grabbed", !onSeam);
  }

  move(event) {
    const before = this.pointers.get(event.pointerId);
    if (!before) return;
    const now = this.at(event);
    if (before.onSeam) {
      this.split.value = (100 * now.x) / this.canvas.clientWidth;
      this.draw();
    } else if (this.pointers.size === 1) {
      this.pan(now.x - before.x, now.y - before.y);
    } else {
      this.pinch(event.pointerId, before, now);
    }
    this.pointers.set(event.pointerId, { ...now, onSeam: before.onSeam });
  }

  pinch(id, before, now) {
    const [other] = [...this.pointers].filter(([key]) => key !== id).map(([, value]) => value);
    const gap = (a, b) => Math.hypot(a.x - b.x, a.y - b.y);
    const middle = { x: (other.x + now.x) / 2, y: (other.y + now.y) / 2 };
    this.zoomBy(gap(now, other) / Math.max(gap(before, other), 1), middle);
    this.pan((now.x - before.x) / 2, (now.y - before.y) / 2);
  }

  up(event) {
    this.pointers.delete(event.pointerId);
    this.canvas.classList.remove("grabbed");
  }

  key(event) {
    const step = 60;
    const acts = {
      "+": () => this.zoomBy(1.5),
      "=": () => this.zoomBy(1.5),
      "-": () => this.zoomBy(1 / 1.5),
      0: () => this.fit(),
      1: () => this.zoomTo(1),
      ArrowLeft: () => this.pan(step, 0),
      ArrowRight: () => this.pan(-step, 0),
      ArrowUp: () => this.pan(0, step),
      ArrowDown: () => this.pan(0, -step),
    };
    if (event.ctrlKey || event.metaKey || event.altKey || !acts[event.key]) return;
    event.preventDefault();
    acts[event.key]();
  }
}
