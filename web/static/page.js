// Asks for the part of the page that changes, and replaces it when it differs.
const part = document.getElementById("state");
async function look() {
  try {
    const answer = await fetch("/state");
    if (answer.ok) {
      const text = await answer.text();
      if (text !== part.dataset.text) {
        part.innerHTML = text;
        part.dataset.text = text;
      }
    }
  } catch (error) {
    console.warn("the web server does not answer", error);
  }
  setTimeout(look, 1000);
}
look();
