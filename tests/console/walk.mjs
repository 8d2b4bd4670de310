// What a newcomer wants of the console, done in a browser beside `make up`: how many clicks each takes, what has to be typed, and how long
// the pages take. Exits 1 when something takes more clicks than is written here, or cannot be done.
import { execFileSync } from "node:child_process";
import { createRequire } from "node:module";
import { join } from "node:path";

const require = createRequire(join(process.env.NODE_MODULES ?? join(process.cwd(), "target/console"), "package.json"));
const { chromium } = require("playwright-core");
const { CONSOLE_URL: origin, CONSOLE_EDGE: edge, CONSOLE_DATA: data } = process.env;

const invited = JSON.parse(execFileSync(edge, ["console", "invite", "--name", "newcomer", "--role", "admin", "--json", "--url", origin],
  { env: { ...process.env, FARMIQ_EDGE__DATA_DIR: data } }).toString());
const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: ["--headless=new", "--no-sandbox"] });
const page = await (await browser.newContext({ viewport: { width: 360, height: 740 }, isMobile: true, hasTouch: true, locale: "en-GB" })).newPage();

let clicks = 0, typed = 0, failed = 0;
const rows = [];
/// A click of a person: on what can be seen and is large enough to be hit.
async function click(what) {
  const one = page.locator(what).locator("visible=true").first();
  await one.scrollIntoViewIfNeeded({ timeout: 20_000 });
  await one.click();
  await page.waitForLoadState("domcontentloaded");
  clicks += 1;
}
async function type(what, text) {
  await page.fill(what, text);
  typed += 1;
}
/// Looks at a page until it says so, as one who waits for something would.
async function sees(what, seconds = 60) {
  const until = performance.now() + seconds * 1000;
  while ((await page.locator(what).locator("visible=true").count()) === 0) {
    if (performance.now() > until) throw new Error(`${page.url()} does not show ${what}`);
    await page.waitForTimeout(1000);
    await page.reload();
  }
  return (await page.locator(what).locator("visible=true").first().textContent()).replace(/\s+/g, " ").trim();
}
async function want(wish, most, work) {
  [clicks, typed] = [0, 0];
  const begun = performance.now();
  try {
    const found = await work();
    const isMany = clicks > most;
    failed += isMany ? 1 : 0;
    rows.push([isMany ? "MANY" : "done", wish, clicks, typed, (performance.now() - begun) / 1000, found]);
  } catch (error) {
    failed += 1;
    rows.push(["FAIL", wish, clicks, typed, (performance.now() - begun) / 1000, error.message.split("\n")[0]]);
  }
  const [verdict, name, count, fields, seconds, found] = rows.at(-1);
  console.log(`  ${verdict}  ${name.padEnd(34)} ${count} clicks, ${fields} typed, ${seconds.toFixed(1)} s  ${found ?? ""}`);
}

await want("get in by the QR of make up", 1, async () => {
  await page.goto(invited.url);
  await click("form.code button");
  await page.waitForURL(url => !url.pathname.startsWith("/login"));
  return page.url();
});
await want("is my barn well?", 0, async () => `${await sees("#status")}: ${await sees(".alarm b")}`);
await want("which scale drifts?", 1, async () => {
  await click("nav a[href='/weights']");
  await sees("#scales tr:has(.tag.look)", 120);
  return (await page.locator("#scales tr:has(.tag.look)").allInnerTexts()).join(" | ").replace(/\s+/g, " ");
});
await want("acknowledge the alarm", 2, async () => {
  await click("#status");
  await click("form[action$='/ack'] button");
  await page.waitForURL(/said=done/);
  return sees("[role=status].note");
});
await want("run the drill", 3, async () => {
  await click("a[href='/alarms?show=drill']");
  await click("form[action='/alarms/drills'] button");
  await page.waitForURL(/said=done/);
  await sees("form[action$='/answer'] button", 30);
  await click("form[action$='/answer'] button");
  return sees(".tag.good");
});
await want("let a new sensor in, with its QR", 5, async () => {
  await click("nav a[href='/more']");
  await click("main a[href='/devices']");
  await click("a[href='/devices/new']");
  await type("#id", "d-200");
  await click("main form button");
  const user = await page.inputValue("#username");
  await click("a[href$='/label']");
  await sees("svg.qr");
  return user;
});
await want("why was a message refused?", 3, async () => {
  await click("nav a[href='/more']");
  await click("main a[href='/devices']");
  await click("main .item:has(.tag:text('messages refused'))");
  return sees("section[aria-labelledby=refused-h] .body", 30);
});
await want("have what was given up sent again", 5, async () => {
  await click("nav a[href='/more']");
  await click("main a[href='/delivery']");
  await sees("input[type=checkbox][name=id]", 120);
  await click("input[type=checkbox][name=id]");
  await click("button[value=chosen]");
  await click("button[name=sure]");
  await page.waitForURL(/said=tried-again/);
  return sees("[role=status].note");
});
await want("print the flock's page", 4, async () => {
  await click("nav a[href='/more']");
  await click("main a[href='/flocks']");
  await click("main .items a");
  await click("a[href$='/sheet']");
  const pdf = await page.pdf({ format: "A4", preferCSSPageSize: true });
  return `${await sees("article h1")}, ${Math.round(pdf.length / 1000)} kB to print`;
});
await browser.close();
console.log(failed === 0 ? "the walk is done" : `${failed} wishes were not fulfilled in time`);
process.exit(failed === 0 ? 0 : 1);
