"use strict";
const { websocket, jid, password } = document.body.dataset;
// The page says when it is logged in.
converse.plugins.add("demo", {
  initialize() {
    this._converse.api.listen.on("statusInitialized", () => { document.body.dataset.online = "true"; });
  },
});
converse.initialize({
  whitelisted_plugins: ["demo"],
  assets_path: "/converse/",
  authentication: "login",
  auto_login: true,
  auto_reconnect: true,
  discover_connection_methods: false,
  websocket_url: websocket,
  jid,
  password,
  view_mode: "fullscreen",
  clear_cache_on_logout: true,
  allow_contact_requests: true,
  show_client_info: false,
  show_self_in_roster: false,
  notify_all_room_messages: false,
  i18n: "en",
});
