// A Chromium that does what it is told: lines of JSON in, `{command, …}`, and for each a line
// out, `{result}` or `{error}`.
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";

import { chromium } from "playwright-core";

import { look } from "./look.mjs";

const [executablePath] = process.argv.slice(2);
const browser = await chromium.launch({
  executablePath,
  args: [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-device-for-media-stream",
  ],
});
const PATIENCE_MS = 120_000;
let context, page, calls, troubles, upload;

const commands = {
  /** Open a page in a profile of its own. */
  async open({ url, permissions, options }) {
    context = await browser.newContext(options);
    context.setDefaultTimeout(PATIENCE_MS);
    await context.grantPermissions(permissions);
    await context.addInitScript(() => {
      addEventListener("securitypolicyviolation", ({ violatedDirective, blockedURI }) => {
        console.error(`CSP: ${violatedDirective} ${blockedURI}`);
      });
    });
    watch(new URL(url).origin);
    page = await context.newPage();
    page.on("filechooser", (chooser) => chooser.setFiles(upload));
    await page.goto(url);
  },

  /** Close it, and return what it should never have done. */
  async close() {
    await context.close();
    return troubles;
  },

  /** Return what has been asked of the server, pictures left out. */
  calls: () => calls,

  look: () => page.evaluate(look),

  /** Write what is seen of the page, or of a part of it, to a PNG file. */
  async screenshot({ path, selector }) {
    await (selector ? page.locator(selector) : page).screenshot({ path });
  },

  evaluate: ({ script, given }) => page.evaluate(`(${script})(${JSON.stringify(given)})`),

  /** Wait until something in the page is true: waitForFunction needs what the policy forbids. */
  async until({ script }) {
    const end = Date.now() + PATIENCE_MS;
    while (!(await page.evaluate(script))) {
      if (Date.now() > end) throw new Error(`it never became true: ${script}`);
      await sleep(20);
    }
  },

  /** Choose a file as the button of the page asks for one. */
  async choose({ selector, file }) {
    upload = file;
    await page.click(selector);
  },

  /** Have a file at hand for when the page asks for one. */
  offer({ file }) {
    upload = file;
  },

  /** Drop or paste a file: "drop" or "paste". */
  async give({ how, name, type, base64 }) {
    const transfer = await page.evaluateHandle(
      ([name, type, base64]) => {
        const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
        const transfer = new DataTransfer();
        transfer.items.add(new File([bytes], name, { type }));
        return transfer;
      },
      [name, type, base64],
    );
    await page.evaluate(
      ([how, transfer]) => {
        const init = { bubbles: true, cancelable: true };
        const event =
          how === "paste"
            ? new ClipboardEvent(how, { ...init, clipboardData: transfer })
            : new DragEvent(how, { ...init, dataTransfer: transfer });
        document.body.dispatchEvent(event);
      },
      [how, transfer],
    );
  },

  click: ({ selector }) => page.click(selector),
  tap: ({ selector }) => page.tap(selector),
  hover: ({ selector }) => page.hover(selector),
  fill: ({ selector, value }) => page.fill(selector, value),
  select: ({ selector, value }) => page.selectOption(selector, value).then(() => null),
  text: ({ selector }) => page.innerText(selector),
  press: ({ key }) => page.keyboard.press(key),

  /** Follow a link to a new tab, and return what that shows. */
  async follow({ selector }) {
    const [tab] = await Promise.all([context.waitForEvent("page"), page.click(selector)]);
    await tab.waitForLoadState();
    const text = await tab.innerText("body");
    await tab.close();
    return text;
  },
};

function watch(origin) {
  calls = [];
  troubles = [];
  context.on("console", (message) => {
    if (["error", "warning"].includes(message.type())) troubles.push(message.text());
  });
  context.on("weberror", (error) => troubles.push(error.error().stack));
  context.on("request", (request) => {
    const url = new URL(request.url());
    if (url.protocol !== "blob:" && url.origin !== origin) troubles.push(`asked ${url}`);
    const method = url.pathname.match(/VisionService\/(\w+)$/)?.[1];
    if (method) calls.push({ method, ...fields(request) });
  });
}

/** Return what a request says, but for its picture. */
function fields(request) {
  const type = request.headers()["content-type"];
  const headerBytes = { "application/json": 0, "application/connect+json": 5 }[type];
  if (headerBytes === undefined) return {};
  const { image, ...others } = JSON.parse(request.postDataBuffer().subarray(headerBytes));
  return others;
}

for await (const line of createInterface({ input: process.stdin })) {
  const { command, ...given } = JSON.parse(line);
  let answer;
  try {
    answer = { result: (await commands[command](given)) ?? null };
  } catch (error) {
    answer = { error: error.stack };
  }
  console.log(JSON.stringify(answer));
}
await browser.close();
