// The editor: what it shows is what the backend has.
"use strict";
const host = document.body.dataset.host;
const rows = document.getElementById("contacts");
const answer = document.getElementById("answer");
const add = document.getElementById("add");

// Contacts are a member each, as mod_http_roster_admin has them.
const read = async () => (await fetch("/contacts", { cache: "no-store" })).json();

async function save(contacts) {
  answer.textContent = "…";
  const resp = await fetch("/contacts", { method: "PUT", body: JSON.stringify(contacts) });
  answer.textContent = resp.ok ? `rosterd answered: ${(await resp.json()).message}` : await resp.text();
  await show();
}

function field(value, label, changed) {
  const input = document.createElement("input");
  input.value = value;
  input.setAttribute("aria-label", label);
  input.addEventListener("change", () => changed(input.value.trim()));
  const cell = document.createElement("td");
  cell.append(input);
  return cell;
}

const groupsOf = (contact) => Object.keys(contact.groups || {}).join(", ");
const groupsFrom = (text) => Object.fromEntries(text.split(",").map((g) => g.trim()).filter(Boolean).map((g) => [g, true]));

async function show() {
  const contacts = await read();
  rows.replaceChildren(...Object.entries(contacts).map(([jid, contact]) => {
    const row = document.createElement("tr");
    row.dataset.jid = jid;
    const address = document.createElement("td");
    address.textContent = jid;
    const remove = document.createElement("button");
    remove.type = "button";
    remove.textContent = "Remove";
    remove.addEventListener("click", () => { delete contacts[jid]; save(contacts); });
    const last = document.createElement("td");
    last.append(remove);
    row.append(address,
      field(contact.name || "", "Name", (name) => { contact.name = name; save(contacts); }),
      field(groupsOf(contact), "Group", (text) => { contact.groups = groupsFrom(text); save(contacts); }),
      last);
    return row;
  }));
}

add.addEventListener("submit", async (event) => {
  event.preventDefault();
  const { jid, name, group } = Object.fromEntries(new FormData(add));
  const contacts = await read();
  contacts[jid.includes("@") ? jid : `${jid}@${host}`] = { name, groups: groupsFrom(group) };
  add.reset();
  save(contacts);
});

async function visit(online) {
  const resp = await fetch(`/friend?online=${online}`, { method: "POST" });
  if (!resp.ok) answer.textContent = await resp.text();
}
document.getElementById("come").addEventListener("click", () => visit(true));
document.getElementById("go").addEventListener("click", () => visit(false));

show();
// A user may change contacts in the chat, too.
setInterval(() => { if (!rows.contains(document.activeElement)) show(); }, 3000);
