// Takes the page anew every 10 s, and leaves the reader where they are. Without it, the page is as readable.
"use strict";
setInterval(async () => {
  if (document.hidden) return;
  const note = document.getElementById("stale");
  try {
    const answer = await fetch("/", { cache: "no-store" });
    if (!answer.ok) throw new Error(answer.status);
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    const open = new Set([...document.querySelectorAll("details[open]")].map((d) => d.id));
    for (const d of fresh.querySelectorAll("details")) d.open = open.has(d.id);
    document.title = fresh.title;
    document.querySelector("main").replaceWith(fresh.querySelector("main"));
    note.hidden = true;
  } catch {
    note.hidden = false;
  }
}, 10000);
