// How long the engine takes for each screen of a barn with much in it, by its own clock: from the request's last byte to the answer's first,
// over the loopback, the median of eleven. Exits 1 when one takes longer than CONSOLE_MS_MAX, 50 unless given.
const { CONSOLE_URL: origin, CONSOLE_KEY: key, CONSOLE_FLOCK: flock } = process.env;
const most = Number(process.env.CONSOLE_MS_MAX ?? 50);
const ROUNDS = 11;
const SCREENS = [
  ["S1 barn", "/"], ["S2 weights", "/weights"], ["S3 climate, a day", "/climate"], ["S3 climate, a week", "/climate?span=week"],
  ["S3 climate, the flock", "/climate?span=flock"], ["S4 alarms", "/alarms"], ["S5 review", "/review"], ["S6 devices", "/devices"],
  ["S6 a device", "/devices/d-001"], ["S7 delivery", "/delivery"], ["S8 flock book", `/flocks/${flock}`], ["S8 sheet", `/flocks/${flock}/sheet`],
];

const entered = await fetch(`${origin}/login`, { method: "POST", body: new URLSearchParams({ key, to: "/" }), redirect: "manual" });
const cookie = entered.headers.get("set-cookie").split(";")[0];
let slow = 0;
for (const [name, path] of SCREENS) {
  const times = [];
  let bytes = 0;
  for (let round = 0; round < ROUNDS; round += 1) {
    const begun = performance.now();
    const answer = await fetch(origin + path, { headers: { cookie, "accept-encoding": "gzip" } });
    times.push(performance.now() - begun);
    if (answer.status !== 200) throw new Error(`${path}: ${answer.status}`);
    bytes = (await answer.arrayBuffer()).byteLength;
  }
  times.sort((a, b) => a - b);
  const median = times[(ROUNDS - 1) / 2];
  if (median > most) slow += 1;
  console.log(`  ${median > most ? "SLOW" : "fine"}  ${name.padEnd(22)} ${median.toFixed(1).padStart(7)} ms, at most ${times[ROUNDS - 1].toFixed(1)} ms; ${Math.round(bytes / 1000)} kB of page`);
}
console.log(slow === 0 ? `every screen within ${most} ms` : `${slow} screens take longer than ${most} ms`);
process.exit(slow === 0 ? 0 : 1);
