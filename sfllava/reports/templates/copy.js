for (const button of document.querySelectorAll("button[data-copy]")) {
  button.hidden = false;
  button.addEventListener("click", async () => {
    const source = document.getElementById(button.dataset.copy);
    try {
      await navigator.clipboard.writeText(source.textContent);
      button.textContent = "copied";
    } catch {
      // without access to the clipboard the text is selected, for the keyboard to copy
      getSelection().selectAllChildren(source);
      button.textContent = "selected: press Ctrl+C";
    }
    setTimeout(() => { button.textContent = "copy"; }, 2500);
  });
}
