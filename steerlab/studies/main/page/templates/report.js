// Draw every figure from the JSON that follows its box.
for (const box of document.querySelectorAll(".plot")) {
  const figure = JSON.parse(box.nextElementSibling.textContent);
  Plotly.newPlot(box, figure.data, figure.layout, {responsive: true, displaylogo: false, displayModeBar: false});
}
