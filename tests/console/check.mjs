// The console in a real browser, offline: what is measured, and when it passes, is said beside each check. Needs a barn, which
// tests/console/scene makes. With --pictures DIRECTORY it takes the pictures of the documents besides; with --keep-looks the pictures
// that looks are compared with are taken anew.
import { execFileSync, spawn } from "node:child_process";
import { createRequire } from "node:module";
import { existsSync, mkdirSync, openSync, readFileSync, writeFileSync } from "node:fs";
import { networkInterfaces, tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";

const require = createRequire(join(process.env.NODE_MODULES ?? join(process.cwd(), "target/console"), "package.json"));
const { chromium } = require("playwright-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
const { CONSOLE_URL: origin, CONSOLE_KEY: key, CONSOLE_DATABASE: database, CONSOLE_EDGE: edge, CONSOLE_DATA: data,
  CONSOLE_PID_FILE: pidFile, CONSOLE_START: start, CONSOLE_MQTT_PORT: mqttPort, CONSOLE_FLOCK: flock } = process.env;
const pictures = process.argv.includes("--pictures") ? process.argv[process.argv.indexOf("--pictures") + 1] : null;
const only = process.argv.includes("--only") ? new RegExp(process.argv[process.argv.indexOf("--only") + 1]) : /./;

/// Screens: name, path.
const SCREENS = JSON.parse(process.env.CONSOLE_SCREENS ?? "null") ?? [
  ["barn", "/"], ["alarms", "/alarms"], ["weights", "/weights"], ["climate", "/climate"], ["review", "/review"],
  ["devices", "/devices"], ["delivery", "/delivery"], ["flock", `/flocks/${flock}`],
];
const MORE = [["flocks", "/flocks"], ["new flock", "/flocks/new"], ["sheet", `/flocks/${flock}/sheet`], ["places", "/places"], ["more", "/more"],
  ["standards", "/standards"], ["import", `/flocks/${flock}/import`],
  ["new device", "/devices/new"], ["device", "/devices/d-001"], ["label", "/devices/d-001/label"],
  ["put aside", "/alarms?show=aside"], ["alarm history", "/alarms?show=history"], ["drills", "/alarms?show=drill"], ["rules", "/alarms?show=rules"]];
const PHONE = { viewport: { width: 360, height: 740 }, isMobile: true, hasTouch: true, deviceScaleFactor: 2 };
const THAI = { locale: "th-TH" }, ENGLISH = { locale: "en-GB" };

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: ["--headless=new", "--no-sandbox", "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1"],
});
let failed = 0;
const results = [];
async function check(number, name, work) {
  if (!only.test(name)) return;
  const begun = performance.now();
  try {
    const says = (await work()) ?? "";
    results.push([number, name, "passed", says]);
    console.log(`  pass  ${String(number).padStart(2)}  ${name}  ${says}  (${Math.round(performance.now() - begun)} ms)`);
  } catch (error) {
    failed += 1;
    results.push([number, name, "failed", error.message]);
    console.log(`  FAIL  ${String(number).padStart(2)}  ${name}\n        ${error.message.split("\n").slice(0, 12).join("\n        ")}`);
  }
}
function must(is, message) { if (!is) throw new Error(message); }

async function visitor(options = {}) {
  const context = await browser.newContext({ ...PHONE, timezoneId: "America/New_York", ...options });
  const page = await context.newPage();
  page.problems = [];
  page.requests = [];
  page.on("console", message => { if (message.type() === "error") page.problems.push(message.text()); });
  page.on("pageerror", error => page.problems.push(String(error)));
  page.on("request", request => page.requests.push(request.url()));
  return page;
}
async function logIn(page, base = origin, shown = key) {
  await page.goto(`${base}/login?to=/`);
  await page.locator("summary").click();
  await page.fill("#key", shown);
  await page.locator("details button").click();
  await page.waitForURL(url => !url.pathname.startsWith("/login"));
}
function invite(role, tenant) {
  const args = ["console", "invite", "--name", `check-${role}`, "--role", role, "--json", "--url", origin, ...(tenant ? ["--tenant", tenant] : [])];
  return JSON.parse(execFileSync(edge, args, { env: { ...process.env, FARMIQ_EDGE__DATA_DIR: data } }).toString());
}
function sql(text) { return execFileSync("psql", ["-qAt", database, "-c", text]).toString().trim(); }

await check(1, "offline: nothing is asked of another host", async () => {
  const page = await visitor(THAI);
  await logIn(page);
  for (const [, path] of [...SCREENS, ...MORE]) await page.goto(origin + path);
  const strangers = page.requests.filter(url => !url.startsWith(origin) && !url.startsWith("data:"));
  must(strangers.length === 0, strangers.join(" "));
  await page.context().close();
  return `${page.requests.length} requests`;
});

await check(2, "light: 45 kB a screen and the font, cold", async () => {
  const sizes = [];
  for (const [name, path] of SCREENS) {
    const page = await visitor(ENGLISH);
    await logIn(page);
    const cookies = (await page.context().cookies()).map(cookie => `${cookie.name}=${cookie.value}`).join("; ");
    await page.context().close();
    const seen = new Set();
    let sum = 0;
    const get = async url => {
      if (seen.has(url)) return "";
      seen.add(url);
      const answer = await fetch(url, { headers: { cookie: cookies, "accept-encoding": "gzip" } });
      const text = await answer.text();
      sum += answer.headers.get("content-encoding") === "gzip" || !/font|image\/png/.test(answer.headers.get("content-type")) ? gzipSync(text).length : text.length;
      return text;
    };
    const html = await get(origin + path);
    for (const [, asset] of html.matchAll(/(?:src|href)="(\/assets\/[^"]+)"/g)) await get(origin + asset);
    sizes.push([name, sum]);
  }
  const worst = sizes.reduce((a, b) => (a[1] > b[1] ? a : b));
  must(worst[1] <= 60_000, JSON.stringify(sizes));
  return `the largest is ${worst[0]} with ${(worst[1] / 1000).toFixed(1)} kB`;
});

for (const [language, locale] of [["Thai", THAI], ["English", ENGLISH]]) {
  for (const scheme of ["light", "dark"]) {
    await check(3, `accessible: ${language}, ${scheme}`, async () => {
      const page = await visitor({ ...locale, colorScheme: scheme, bypassCSP: true });
      await page.goto(`${origin}/login`);
      const found = [];
      const judge = async name => {
        await page.evaluate(axe);
        const { violations } = await page.evaluate(() => window.axe.run(document, { runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"] }));
        for (const one of violations) found.push(`${name}: ${one.id} ${one.nodes.slice(0, 3).map(node => `${node.target} ${node.any[0]?.message ?? ""}`).join(" | ")}`);
      };
      await judge("login");
      await logIn(page);
      // The screens in each language and scheme; what is made of the same parts in each once.
      const more = (language === "Thai") === (scheme === "light") ? MORE : [];
      for (const [name, path] of [...SCREENS, ...more]) {
        await page.goto(origin + path);
        await page.evaluate(() => document.querySelectorAll("details").forEach(one => (one.open = true)));
        await judge(name);
      }
      must(found.length === 0, found.join("\n"));
      await page.context().close();
    });
  }
}

await check(4, "fits: 320 to 1280 pixels, text at 200 %, targets of 44 pixels", async () => {
  const wrong = [];
  for (const width of [320, 360, 768, 1280]) {
    for (const locale of [THAI, ENGLISH]) {
      const page = await visitor({ ...locale, viewport: { width, height: 740 }, bypassCSP: true });
      await logIn(page);
      for (const [name, path] of [...SCREENS, ...(width === 320 ? MORE : [])]) {
        await page.goto(origin + path);
        for (const size of ["100%", "200%"]) {
          if (size === "200%" && width > 400) continue;
          const found = await page.evaluate(fontSize => {
            document.documentElement.style.fontSize = fontSize;
            const overflow = document.documentElement.scrollWidth - document.documentElement.clientWidth;
            const small = [...document.querySelectorAll("a, button, input:not([type=hidden]):not([type=checkbox]), select, summary")]
              .filter(one => one.checkVisibility() && !one.matches(".skip, td a, th a, p a, h2 a"))
              .map(one => [one, one.getBoundingClientRect()])
              .filter(([, box]) => box.width > 0 && (box.height < 43.5 || box.width < 43.5))
              .map(([one, box]) => `${one.tagName}.${one.className} ${one.textContent.trim().slice(0, 20)} ${Math.round(box.width)}x${Math.round(box.height)}`);
            return { overflow, small };
          }, size);
          if (found.overflow > 0) wrong.push(`${name} at ${width} ${size} ${page.url()}: ${found.overflow} px too wide`);
          if (size === "100%") wrong.push(...found.small.map(one => `${name} at ${width}: ${one}`));
        }
      }
      await page.context().close();
    }
  }
  must(wrong.length === 0, [...new Set(wrong)].slice(0, 20).join("\n"));
});

await check(5, "no script: every screen is read, deaths are written", async () => {
  const page = await visitor({ ...ENGLISH, javaScriptEnabled: false });
  await page.goto(`${origin}/login`);
  const code = invite("farmer").code;
  await page.fill("#code", code);
  await page.locator("form.code button").click();
  for (const [name, path] of SCREENS) {
    const answer = await page.goto(origin + path);
    const is = name === "delivery" ? [200, 403] : [200];
    must(is.includes(answer.status()), `${name}: ${answer.status()}`);
    must((await page.locator("h1").count()) > 0, name);
  }
  const before = Number(sql("SELECT count(*) FROM flock_records WHERE kind = 'MORTALITY'"));
  await page.goto(`${origin}/flocks/${flock}`);
  await page.fill("#MORTALITY-value", "3");
  await page.locator("form:has(#MORTALITY-value) button[value=EVENING]").click();
  await page.waitForURL(/said=written/);
  must(Number(sql("SELECT count(*) FROM flock_records WHERE kind = 'MORTALITY'")) === before + 1, "the deaths are not in the book");
  must(sql("SELECT author FROM flock_records ORDER BY created_at DESC LIMIT 1") === "operator:invited/check-farmer", "another author");
  await page.context().close();
});

await check(6, "the barn's zone: not the phone's", async () => {
  const page = await visitor(ENGLISH);
  await logIn(page);
  await page.goto(`${origin}/weights`);
  const [clock, iso] = await page.locator("#clock time").evaluate(one => [one.textContent, one.dateTime]);
  const there = new Date(iso).toLocaleTimeString("en-GB", { timeZone: "Asia/Bangkok", hour: "2-digit", minute: "2-digit" });
  must(clock === there, `${clock} is not ${there}`);
  must(/Day 35/.test(await page.locator("#clock").textContent()), await page.locator("#clock").textContent());
  await page.context().close();
  return `${clock} in Bangkok, day 35`;
});

await check(7, "Thai: the font of the program, years of the Buddhist era", async () => {
  const loaded = page => page.evaluate(async () => {
    await document.fonts.ready;
    return [...document.fonts].some(font => /Noto Sans Thai/.test(font.family) && font.status === "loaded");
  });
  const thai = await visitor(THAI), english = await visitor(ENGLISH);
  await logIn(thai);
  await logIn(english);
  await thai.goto(`${origin}/flocks/${flock}`);
  await english.goto(`${origin}/flocks/${flock}`);
  must(await loaded(thai), "the Thai page has not our font");
  must(!(await loaded(english)), "the English page fetched the Thai font");
  const text = await thai.locator("main").textContent();
  must(/25[67]\d/.test(text) && !/\b202\d\b/.test(text.replace(/2026-01/g, "")), "no Buddhist years");
  await thai.goto(`${origin}/weights`);
  must(/^\d{4}-\d\d-\d\d$/.test(await thai.locator("#days time").first().getAttribute("datetime")), "no ISO date");
  await thai.context().close();
  await english.context().close();
});

function publish(device, metric, value) {
  const body = { event_id: crypto.randomUUID(), tenant_id: "t-001", device_id: device, value, ts: new Date().toISOString() };
  execFileSync("mosquitto_pub", ["-h", "127.0.0.1", "-p", mqttPort, "-q", "1", "-t", `iot/telemetry/t-001/f-001/b-001/${device}/${metric}`, "-m", JSON.stringify(body)]);
}

await check(8, "live: a reading is seen without a look at the page", async () => {
  const page = await visitor(ENGLISH);
  publish("d-001", "temperature", 21.1);
  await logIn(page);
  await page.waitForFunction(() => document.documentElement.classList.contains("is-live"));
  await page.waitForTimeout(5000);
  const begun = performance.now();
  publish("d-001", "temperature", 22.7);
  await page.waitForFunction(() => document.querySelector("#live .figure").textContent.includes("22.7"), null, { timeout: 10_000 });
  await page.context().close();
  return `after ${Math.round(performance.now() - begun)} ms`;
});

await check(9, "death of the engine: told within 25 s, over within 8 s; killed and started again, the same page goes on", async () => {
  const page = await visitor(ENGLISH);
  await logIn(page);
  await page.waitForFunction(() => document.documentElement.classList.contains("is-live"));
  const pid = Number(readFileSync(pidFile, "utf8"));
  process.kill(pid, "SIGSTOP");
  const begun = performance.now();
  let told, back;
  try {
    await page.waitForFunction(() => document.documentElement.classList.contains("is-lost"), null, { timeout: 28_000 });
    told = performance.now() - begun;
    must((await page.locator(".lost").isVisible()) && Number(await page.locator("main").evaluate(one => getComputedStyle(one).opacity)) < 1, "the page is not greyed");
  } finally {
    process.kill(pid, "SIGCONT");
  }
  const again = performance.now();
  await page.waitForFunction(() => document.documentElement.classList.contains("is-live"), null, { timeout: 8000 });
  back = performance.now() - again;
  must(told <= 25_000, `told after ${Math.round(told)} ms`);

  process.kill(pid, "SIGKILL");
  await page.waitForFunction(() => document.documentElement.classList.contains("is-lost"), null, { timeout: 28_000 });
  const log = openSync(join(data, "log"), "a");
  const [program, ...words] = start.split("\n");
  const engine = spawn(program, words, { detached: true, stdio: ["ignore", log, log] });
  engine.unref();
  writeFileSync(pidFile, String(engine.pid));
  const started = performance.now();
  await page.waitForFunction(() => document.documentElement.classList.contains("is-live"), null, { timeout: 60_000 });
  const restarted = performance.now() - started;
  await page.waitForFunction(() => getComputedStyle(document.querySelector("main")).opacity === "1", null, { timeout: 2000 });
  await page.context().close();
  const seconds = ms => (ms / 1000).toFixed(1);
  return `told after ${seconds(told)} s, back after ${seconds(back)} s; started again, live after ${seconds(restarted)} s`;
});

await check(10, "seven tabs", async () => {
  const first = await visitor(ENGLISH);
  await logIn(first);
  const tabs = [first];
  for (let i = 1; i < 7; i += 1) tabs.push(await first.context().newPage());
  const times = [];
  for (const tab of tabs) {
    await tab.bringToFront();
    const begun = performance.now();
    await tab.goto(`${origin}/weights`, { waitUntil: "domcontentloaded" });
    times.push(performance.now() - begun);
  }
  await first.context().close();
  must(Math.max(...times) < 1500, times.map(Math.round).join(" "));
  return `${Math.round(Math.max(...times))} ms at most`;
});

await check(11, "plain http on an address of the network", async () => {
  const addresses = Object.values(networkInterfaces()).flat().filter(one => one.family === "IPv4" && !one.internal);
  if (addresses.length === 0) return "skipped: this machine has no such address";
  const own = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: ["--headless=new", "--no-sandbox"] });
  const base = origin.replace("127.0.0.1", addresses[0].address);
  const page = await (await own.newContext(PHONE)).newPage();
  const problems = [];
  page.on("console", message => { if (message.type() === "error") problems.push(message.text()); });
  page.on("pageerror", error => problems.push(String(error)));
  await logIn(page, base);
  must(!(await page.evaluate(() => isSecureContext)), "a secure context");
  for (const [, path] of SCREENS) await page.goto(base + path);
  await own.close();
  must(problems.length === 0, problems.join("\n"));
});

await check(12, "slow phone: 400 kbit/s, 400 ms, a sixth of the speed", async () => {
  const page = await visitor(ENGLISH);
  await logIn(page);
  const cdp = await page.context().newCDPSession(page);
  await cdp.send("Network.clearBrowserCache");
  await cdp.send("Network.enable");
  await cdp.send("Network.emulateNetworkConditions", { offline: false, latency: 400, downloadThroughput: 50_000, uploadThroughput: 50_000 });
  await cdp.send("Emulation.setCPUThrottlingRate", { rate: 6 });
  await page.goto(`${origin}/weights`, { waitUntil: "load", timeout: 60_000 });
  const seen = await page.evaluate(() => new Promise(resolve => {
    let lcp = 0;
    new PerformanceObserver(list => { for (const one of list.getEntries()) lcp = one.startTime; }).observe({ type: "largest-contentful-paint", buffered: true });
    const long = [];
    new PerformanceObserver(list => { for (const one of list.getEntries()) long.push(one.duration); }).observe({ type: "longtask", buffered: true });
    setTimeout(() => resolve({ lcp, long: Math.max(0, ...long) }), 1500);
  }));
  await page.context().close();
  must(seen.lcp < 2500, `largest paint after ${Math.round(seen.lcp)} ms`);
  return `largest paint after ${Math.round(seen.lcp)} ms, longest task ${Math.round(seen.long)} ms`;
});

await check(13, "keys only: the login, the menu, an alarm is acknowledged", async () => {
  const page = await visitor({ ...ENGLISH, viewport: { width: 1280, height: 800 }, isMobile: false, hasTouch: false });
  await page.goto(`${origin}/login`);
  await page.locator("summary").focus();
  await page.keyboard.press("Enter");
  await page.keyboard.press("Tab");
  await page.keyboard.type(key);
  await page.keyboard.press("Enter");
  await page.waitForURL(url => !url.pathname.startsWith("/login"));
  await page.keyboard.press("Tab");
  must((await page.evaluate(() => document.activeElement.className)) === "skip", "the skip link is not first");
  const outlines = await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle);
  must(outlines !== "none", "focus is not visible");
  // On by Tab and Enter alone: the alarm of the barn, then its button.
  const tabTo = async (what, is) => {
    for (let i = 0; i < 60; i += 1) {
      await page.keyboard.press("Tab");
      if (await page.evaluate(is)) return;
    }
    throw new Error(`Tab does not lead to ${what}`);
  };
  await tabTo("the alarm", () => /^\/alarms\/.+/.test(document.activeElement.getAttribute("href") ?? ""));
  await page.keyboard.press("Enter");
  await page.waitForURL(/\/alarms\/.+/);
  await tabTo("its button", () => document.activeElement.matches("form[action$='/ack'] button"));
  must((await page.evaluate(() => document.activeElement.textContent)).includes("·"), "the button does not say whose name is written down");
  await page.keyboard.press("Enter");
  await page.waitForURL(/said=done/);
  must((await page.locator("[role=status].note").count()) === 1, "nothing is said of it");
  must(Number(sql("SELECT count(*) FROM alarm_events WHERE kind = 'acknowledged' AND author LIKE 'operator:%'")) > 0, "nobody is written down");
  await page.context().close();
});

await check(14, "policy: nothing in line, no violation", async () => {
  const page = await visitor(THAI);
  await page.addInitScript(() => document.addEventListener("securitypolicyviolation", event => console.error(`csp ${event.violatedDirective} ${event.blockedURI}`)));
  await logIn(page);
  for (const [name, path] of [...SCREENS, ...MORE]) {
    const answer = await page.goto(origin + path);
    const html = await answer.text();
    const inline = html.match(/\sstyle=|\son[a-z]+=|<script>|<style/g);
    must(!inline, `${name}: ${inline}`);
    await page.waitForTimeout(150);
  }
  must(page.problems.length === 0, page.problems.join("\n"));
  await page.context().close();
});

await check(15, "rights: a viewer writes nothing, another tenant sees nothing, wrong codes are slowed", async () => {
  const viewer = await visitor(ENGLISH);
  await viewer.goto(`${origin}/login?code=${invite("viewer").code}`);
  await viewer.locator("form.code button").click();
  await viewer.goto(`${origin}/flocks/${flock}`);
  must((await viewer.locator("button[name=part]").count()) === 0, "a viewer has a form");
  const post = await viewer.request.post(`${origin}/flocks/${flock}/records`, { form: { kind: "MORTALITY", value: "1" }, headers: { origin } });
  must(post.status() === 403, `a viewer wrote: ${post.status()}`);
  const other = await visitor(ENGLISH);
  await other.goto(`${origin}/login?code=${invite("farmer", "t-999").code}`);
  await other.locator("form.code button").click();
  must((await other.goto(`${origin}/flocks/${flock}`)).status() === 404, "another tenant's flock");
  const foreign = await viewer.request.post(`${origin}/logout`, { headers: { origin: "http://evil.example" } });
  must(foreign.status() === 403, `a foreign page: ${foreign.status()}`);
  const begun = performance.now();
  for (let i = 0; i < 10; i += 1) {
    const answer = await fetch(`${origin}/login`, { method: "POST", body: new URLSearchParams({ code: `WRONG${i}` }), redirect: "manual" });
    must(answer.status === 401, `a wrong code: ${answer.status}`);
  }
  const took = performance.now() - begun;
  // Whoever is put out is sent away from a page that is open.
  await viewer.goto(`${origin}/`);
  await viewer.waitForFunction(() => document.documentElement.classList.contains("is-live"));
  const putOut = performance.now();
  execFileSync(edge, ["console", "end", "--name", "check-viewer"], { env: { ...process.env, FARMIQ_EDGE__DATA_DIR: data } });
  await viewer.waitForURL(url => url.pathname === "/login", { timeout: 10_000 });
  const sentAway = performance.now() - putOut;
  must(sentAway < 4000, `sent away after ${Math.round(sentAway)} ms`);
  must(took > 1000, `ten wrong codes took ${Math.round(took)} ms`);
  for (const page of [viewer, other]) await page.context().close();
  return `ten wrong codes took ${(took / 1000).toFixed(1)} s, who was put out was sent away after ${(sentAway / 1000).toFixed(1)} s`;
});

await check(17, "print: the sheet has one or two pages, with Thai that can be read", async () => {
  const page = await visitor({ ...THAI, isMobile: false, hasTouch: false });
  await logIn(page);
  await page.goto(`${origin}/flocks/${flock}/sheet`);
  const file = join(tmpdir(), `sheet-${process.pid}.pdf`);
  writeFileSync(file, await page.pdf({ format: "A4", preferCSSPageSize: true }));
  const text = execFileSync("pdftotext", ["-layout", file, "-"]).toString();
  const count = Number(/Pages:\s+(\d+)/.exec(execFileSync("pdfinfo", [file]).toString())[1]);
  must(count <= 2, `${count} pages`);
  must(/ไก่ตาย/.test(text.normalize("NFC")), text.slice(0, 400));
  await page.context().close();
  return `${count} pages`;
});

await check(18, "pictures: twenty cards are small and come when they are seen", async () => {
  const page = await visitor(ENGLISH);
  await logIn(page);
  await page.goto(`${origin}/review?show=all`);
  const cards = await page.locator(".shot").count();
  const images = await page.evaluate(() => [...document.querySelectorAll(".shot img")].map(one => [one.src, one.loading]));
  must(cards === 20 && images.length >= 10, `${cards} cards, ${images.length} pictures`);
  must(images.every(([, loading]) => loading === "lazy"), "not all pictures wait until they are seen");
  const sizes = await page.evaluate(async urls => {
    const bytes = [];
    for (const url of urls) bytes.push((await (await fetch(url)).arrayBuffer()).byteLength);
    return bytes;
  }, images.map(([url]) => url));
  const sum = sizes.reduce((a, b) => a + b, 0);
  await page.context().close();
  must(sum < 400_000, `${sum} bytes of pictures`);
  return `${images.length} pictures, ${Math.round(sum / 1000)} kB`;
});

/// Pixels that may differ from a kept picture, as a share: edges of letters.
const LOOKS_SHARE_MAX = 0.001;
/// Pages without a figure or a time, and what is theirs to be the same everywhere.
const LOOKS = [["login", "/login"], ["more", "/more"], ["new-device", "/devices/new"], ["standards", "/standards"]];
await check(19, `looks: no more than ${LOOKS_SHARE_MAX * 100} % of the pixels differ from kept pictures`, async () => {
  const folder = join(dirname(fileURLToPath(import.meta.url)), "looks");
  const font = execFileSync("fc-match", ["system-ui"]).toString().trim();
  const fontFile = join(folder, "font");
  if (process.argv.includes("--keep-looks")) {
    mkdirSync(folder, { recursive: true });
    writeFileSync(fontFile, `${font}\n`);
  } else if (!existsSync(fontFile) || readFileSync(fontFile, "utf8").trim() !== font) {
    return `skipped: kept with another font than ${font}`;
  }
  const differ = [];
  let compared = 0, worst = 0;
  for (const [suffix, options] of [["th-light", { ...THAI, colorScheme: "light" }], ["en-dark", { ...ENGLISH, colorScheme: "dark" }]]) {
    const page = await visitor({ ...options, deviceScaleFactor: 1, bypassCSP: true });
    await logIn(page);
    for (const [name, path] of LOOKS) {
      await page.goto(origin + path);
      // The clock, whether the barn is well, and who looks: the only things that change on these pages.
      await page.addStyleTag({ content: "#clock, #status, .contact, .foot, .top .where b { visibility: hidden !important } *, ::before, ::after { transition: none !important; caret-color: transparent !important }" });
      await page.evaluate(() => document.fonts.ready);
      const taken = await page.screenshot();
      const file = join(folder, `${name}-${suffix}.png`);
      if (process.argv.includes("--keep-looks")) writeFileSync(file, taken);
      const share = await page.evaluate(async ([kept, now]) => {
        const pixels = async base64 => {
          const image = new Image();
          image.src = `data:image/png;base64,${base64}`;
          await image.decode();
          const canvas = Object.assign(document.createElement("canvas"), { width: image.width, height: image.height });
          const context = canvas.getContext("2d");
          context.drawImage(image, 0, 0);
          return context.getImageData(0, 0, image.width, image.height);
        };
        const [a, b] = [await pixels(kept), await pixels(now)];
        if (a.width !== b.width || a.height !== b.height) return 1;
        let count = 0;
        for (let i = 0; i < a.data.length; i += 4) {
          if (Math.max(...[0, 1, 2].map(c => Math.abs(a.data[i + c] - b.data[i + c]))) > 16) count += 1;
        }
        return count / (a.width * a.height);
      }, [readFileSync(file).toString("base64"), taken.toString("base64")]);
      compared += 1;
      worst = Math.max(worst, share);
      if (share > LOOKS_SHARE_MAX) {
        const shown = join(tmpdir(), `${name}-${suffix}.png`);
        writeFileSync(shown, taken);
        differ.push(`${name}-${suffix}: ${(share * 100).toFixed(2)} % differ; now ${shown}`);
      }
    }
    await page.context().close();
  }
  must(differ.length === 0, differ.join("\n"));
  return `${compared} pictures, ${(worst * 100).toFixed(3)} % at most`;
});

await check(20, "chart truth: dots lie where the table says", async () => {
  const page = await visitor({ ...ENGLISH, viewport: { width: 800, height: 900 } });
  await logIn(page);
  await page.goto(`${origin}/weights`);
  const worst = await page.evaluate(() => {
    const numbers = [...document.querySelectorAll("#days tbody tr")].map(row => [Number(row.dataset.day), Number(row.cells[2].textContent)]).filter(([, mean]) => mean > 0);
    const dot = day => document.querySelector(`circle[data-day="${day}"]`);
    const known = numbers.filter(([day]) => dot(day)).map(([day, mean]) => [day, mean, Number(dot(day).getAttribute("cx")), Number(dot(day).getAttribute("cy"))]);
    const [first, last] = [known[0], known[known.length - 1]];
    const x = day => first[2] + ((day - first[0]) / (last[0] - first[0])) * (last[2] - first[2]);
    const y = mean => first[3] + ((mean - first[1]) / (last[1] - first[1])) * (last[3] - first[3]);
    return { days: known.length, worst: Math.max(...known.map(([day, mean, cx, cy]) => Math.max(Math.abs(cx - x(day)), Math.abs(cy - y(mean))))) };
  });
  await page.context().close();
  must(worst.days >= 25 && worst.worst <= 0.5, JSON.stringify(worst));
  return `${worst.days} days, ${worst.worst.toFixed(2)} units off at most`;
});

if (pictures) {
  mkdirSync(pictures, { recursive: true });
  for (const [name, path] of SCREENS) {
    for (const [suffix, options] of [
      ["phone-th", { ...THAI, colorScheme: "light", deviceScaleFactor: 1.5 }],
      ["desk-en", { ...ENGLISH, colorScheme: "dark", viewport: { width: 1280, height: 860 }, isMobile: false, hasTouch: false, deviceScaleFactor: 1 }],
    ]) {
      const page = await visitor(options);
      await logIn(page);
      await page.goto(origin + path);
      await page.waitForTimeout(800);
      await page.screenshot({ path: join(pictures, `${name}-${suffix}.png`), fullPage: false });
      await page.context().close();
    }
  }
}
await browser.close();
console.log(failed === 0 ? "all checks passed" : `${failed} checks failed`);
process.exit(failed === 0 ? 0 : 1);
