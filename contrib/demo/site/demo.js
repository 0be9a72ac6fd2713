const asks = [
  ["GET", "/users/7"], ["GET", "/user-42"], ["GET", "/orders/"], ["POST", "/orders/"],
  ["GET", "/news"], ["GET", "/news"], ["GET", "/feature"], ["GET", "/feature", { "X-Beta": "yes" }],
  ["GET", "/admin", { "Authorization": "Basic " + btoa("demo:demo") }],
  ["GET", "/broken", { "Accept": "application/json" }], ["GET", "/nowhere", { "Accept": "application/json" }],
];
const rows = document.getElementById("rows");
function cell(row, text, kind) {
  const td = row.insertCell();
  td.textContent = text;
  if (kind) td.className = kind;
}
async function ask([method, path, headers = {}]) {
  const row = rows.insertRow();
  const sent = Object.entries(headers).filter(([n]) => n != "Accept").map(([n, v]) => `, ${n}: ${v}`).join("");
  cell(row, `${method} ${path}${sent}`);
  try {
    const a = await fetch(path, { method, headers });
    const text = await a.text();
    cell(row, a.status, a.ok ? "good" : "bad");
    const route = a.headers.get("X-Demo-Route") || "none: warp's own answer", cache = a.headers.get("X-Cache");
    cell(row, cache ? `${route}; X-Cache: ${cache}` : route);
    cell(row, text.trim().slice(0, 120));
  } catch (e) {
    cell(row, "no answer", "bad"); cell(row, ""); cell(row, String(e));
  }
}
async function all() {
  rows.replaceChildren();
  for (const a of asks) await ask(a);
}
document.getElementById("again").onclick = all;
all();
