// A picture from the camera.

import { still } from "./picture.js";

const dialog = document.getElementById("camera");
const viewfinder = document.getElementById("viewfinder");
const trouble = document.getElementById("camera-trouble");
const shoot = document.getElementById("shoot");

const REASONS = {
  NotAllowedError:
    "The browser may not use the camera. Allow it in the browser’s settings for this page.",
  NotFoundError: "There is no camera.",
  NotReadableError: "Another program is using the camera.",
};

/** Show the camera's view and return the picture taken; null if cancelled. */
export async function photograph() {
  trouble.textContent = "";
  shoot.disabled = true;
  dialog.returnValue = "";
  dialog.showModal();
  const closed = new Promise((resolve) => {
    dialog.addEventListener("close", resolve, { once: true });
  });
  const camera = open();
  await closed;
  const picture = dialog.returnValue === "shot" ? await frame() : null;
  for (const track of (await camera)?.getTracks() ?? []) track.stop();
  viewfinder.srcObject = null;
  return picture;
}

async function open() {
  // Browsers hide cameras from pages that were loaded without encryption.
  if (!navigator.mediaDevices) {
    trouble.textContent = "Browsers allow the camera only on https pages and on localhost.";
    return null;
  }
  try {
    const camera = await navigator.mediaDevices.getUserMedia({
      video: { facingMode: "environment", width: { ideal: 1920 }, height: { ideal: 1080 } },
    });
    viewfinder.srcObject = camera;
    return camera;
  } catch (error) {
    trouble.textContent = REASONS[error.name] ?? `The camera can’t be used: ${error.message}`;
    return null;
  }
}

viewfinder.addEventListener("playing", () => {
  shoot.disabled = false;
  shoot.focus();
});
shoot.addEventListener("click", () => dialog.close("shot"));

async function frame() {
  const { videoWidth, videoHeight } = viewfinder;
  const jpeg = await still(viewfinder, videoWidth, videoHeight, "image/jpeg");
  return new File([jpeg], "camera.jpg", { type: jpeg.type });
}
