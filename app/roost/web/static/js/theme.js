// The chosen colours, before anything is drawn. Not a module, so that it runs first.
"use strict";
{
  const order = ["system", "light", "dark"];
  const words = { system: "as the system", light: "light", dark: "dark" };
  const signs = { system: "◐", light: "☀", dark: "☾" };
  let now = localStorage.getItem("roost.theme");
  if (!order.includes(now)) now = "system";

  const apply = () => {
    if (now === "system") document.documentElement.removeAttribute("data-theme");
    else document.documentElement.dataset.theme = now;
    const button = document.getElementById("theme");
    if (button) {
      button.textContent = signs[now];
      button.setAttribute("aria-label", `Colours: ${words[now]}`);
      button.title = `Colours: ${words[now]}`;
    }
  };
  apply();
  document.addEventListener("DOMContentLoaded", () => {
    apply();
    document.getElementById("theme").addEventListener("click", () => {
      now = order[(order.indexOf(now) + 1) % order.length];
      localStorage.setItem("roost.theme", now);
      apply();
    });
  });
}
