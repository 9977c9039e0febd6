// An application around the snippet: a table in memory, and a page that adds a contact.
const express = require("express");
const app = express();
const users = { juliet: [] };
const db = {
  contactsOf: async (user) => users[user],
  transaction: async (work) => {
    const added = [];
    await work({ addContact: async (user, jid, name) => added.push([user, { jid, name }]) });
    await new Promise((done) => setTimeout(done, 50)); // as a database takes its time
    for (const [user, contact] of added) users[user].push(contact);
  },
};
app.get("/add", async (req, res) => {
  await addContact("juliet", "romeo@example.org", "Romeo");
  res.send("added");
});
SNIPPET
const [host, port] = process.env.LISTEN.split(":");
app.listen(Number(port), host);
