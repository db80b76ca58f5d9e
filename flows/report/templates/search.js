(() => {
  "use strict";
  const box = document.getElementById("sample-search");
  const rows = [...document.querySelectorAll("#sample-table tbody tr")].map((row) => [row, row.textContent.toLowerCase()]);
  const count = document.getElementById("sample-count");
  const search = () => {
    const words = box.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const [row, text] of rows) {
      row.hidden = !words.every((word) => text.includes(word));
      shown += row.hidden ? 0 : 1;
    }
    count.textContent = `${shown} of ${rows.length}`;
  };
  box.addEventListener("input", search);
  box.closest("p").hidden = false;
  search();
})();
