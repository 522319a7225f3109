// Hands a key in; the server turns it into a cookie that scripts cannot read.
const key = document.getElementById("key");
const why = document.getElementById("why");

document.getElementById("door").addEventListener("submit", async (event) => {
  event.preventDefault();
  why.textContent = "";
  try {
    const response = await fetch("/session", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ key: key.value.trim() }),
    });
    if (response.ok) {
      location.replace("/");
      return;
    }
    const said = (await response.json()).error.message;
    why.textContent = response.status === 401 ? "This key is not known here." : `It was refused: ${said}.`;
  } catch {
    why.textContent = "The server cannot be reached.";
  }
  key.select();
  key.focus();
});

key.focus();
