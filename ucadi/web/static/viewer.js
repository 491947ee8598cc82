// The CT with the heatmap over it, in niivue, with what a slider, a mouse or a finger change kept in step.

const NIIVUE = "/static/niivue/niivue.umd.js";

// The overlay holds the heatmap in steps of 1/255.
const STEPS = 255;

// The viewer is large: it is loaded when there is something to see. It is no module, but names itself.
async function load() {
  await import(NIIVUE);
  return globalThis.niivue;
}

export const canShow = () => Boolean(document.createElement("canvas").getContext("webgl2"));

export class Viewer {
  // onMove is told { slice, hu, heat } when the cross moves
  constructor(canvas, onMove) {
    this.canvas = canvas;
    this.onMove = onMove;
  }

  async open(ct, overlay) {
    const { Niivue, SLICE_TYPE } = await load();
    this.types = SLICE_TYPE;
    this.niivue = new Niivue({
      isRadiologicalConvention: true, // the patient's right is on the left
      backColor: [0, 0, 0, 1],
      crosshairColor: [0.5, 0.9, 1, 0.9],
      crosshairWidth: 1,
      crosshairWidthUnit: "voxels",
      crosshairGap: 8,
      isOrientCube: false,
      dragAndDropEnabled: false,
      logLevel: "silent",
      loadingText: "loading",
      multiplanarForceRender: false,
      multiplanarShowRender: 0,
      isAlphaClipDark: true,
    });
    await this.niivue.attachToCanvas(this.canvas, false);
    await this.niivue.loadVolumes([
      { url: ct, name: "ct.nii.gz", colormap: "gray", cal_min: -1350, cal_max: 150, trustCalMinMax: false },
      { url: overlay, name: "overlay.nii.gz", colormap: "warm", cal_min: STEPS / 2, cal_max: STEPS, opacity: 0.5, trustCalMinMax: false },
    ]);
    this.niivue.setInterpolation(false);
    this.niivue.onLocationChange = (place) => this.moved(place);
    this.slices = this.niivue.volumes[0].dimsRAS[3];
    this.plane("axial");
  }

  close() {
    this.niivue?.cleanup();
    this.niivue = null;
  }

  moved(place) {
    const [ct, heat] = place.values;
    this.onMove({ slice: Math.round(place.vox[2]) + 1, hu: ct?.value, heat: (heat?.value ?? 0) / STEPS });
  }

  // slices count from 1 at the feet
  slice(number) {
    const cross = this.niivue.scene.crosshairPos;
    this.at([cross[0], cross[1], (number - 0.5) / this.slices]);
  }

  // a place in DICOM's coordinates: left, posterior, superior
  place([left, posterior, superior]) {
    this.at(this.niivue.mm2frac([-left, -posterior, superior]));
  }

  at(fraction) {
    this.niivue.scene.crosshairPos = fraction;
    this.niivue.drawScene();
    this.niivue.createOnLocationChange();
  }

  window(low, high) {
    const ct = this.niivue.volumes[0];
    [ct.cal_min, ct.cal_max] = [low, high];
    this.niivue.updateGLVolume();
  }

  // the heatmap is clear where it is weaker than this share of its maximum; regions are listed from half
  least(share) {
    const heat = this.niivue.volumes[1];
    heat.cal_min = Math.max(1, share * heat.global_max);
    this.niivue.updateGLVolume();
  }

  opacity(share) {
    this.niivue.setOpacity(1, share);
  }

  plane(name) {
    this.niivue.setSliceType(name === "three" ? this.types.MULTIPLANAR : this.types.AXIAL);
  }
}
