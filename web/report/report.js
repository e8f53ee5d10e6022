(() => {
'use strict';

// Draws the document in #data: text, figures (Chart.js; heat maps and surfaces by hand) and tables. All text goes into the
// page as text nodes, so that no name in the data can be markup.

const doc = JSON.parse(document.getElementById('data').textContent);
const folder = doc.figures_folder;
const charts = [];  // {draw, chart}: drawn again when the colours change

function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== null) node.setAttribute(key, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const seriesColor = (i) => style('--c' + (i % 8));
const finite = (value) => typeof value === 'number' && Number.isFinite(value);

function number(value) {
  if (!finite(value)) return '–';
  if (value === 0) return '0';
  const size = Math.abs(value);
  if (size >= 1e6 || size < 1e-4) return value.toExponential(3).replace(/\.?0+e/, 'e').replace('-', '−').replace('e-', 'e−');
  if (Number.isInteger(value)) return value.toLocaleString('en').replace('-', '−');
  return String(Number(value.toPrecision(4))).replace('-', '−');
}

function extent(lists) {
  let low = Infinity, high = -Infinity;
  for (const list of lists) {
    for (const value of list || []) {
      if (!finite(value)) continue;
      low = Math.min(low, value);
      high = Math.max(high, value);
    }
  }
  return low <= high ? [low, high] : null;
}

// Light and dark

function setTheme(theme, remember) {
  document.documentElement.dataset.theme = theme;
  if (remember) {
    try { localStorage.setItem('thalweg-theme', theme); } catch { /* a browser may refuse it to files */ }
  }
  for (const item of charts) item.draw();
}

function startTheme() {
  let kept = null;
  try { kept = localStorage.getItem('thalweg-theme'); } catch { /* as above */ }
  const dark = matchMedia('(prefers-color-scheme: dark)');
  setTheme(kept || (dark.matches ? 'dark' : 'light'), false);
  dark.addEventListener('change', () => { if (!kept) setTheme(dark.matches ? 'dark' : 'light', false); });
  const button = document.getElementById('theme');
  button.addEventListener('click', () => {
    kept = document.documentElement.dataset.theme === 'dark' ? 'light' : 'dark';
    setTheme(kept, true);
  });
  let before = null;
  addEventListener('beforeprint', () => {
    before = document.documentElement.dataset.theme;
    setTheme('light', false);
  });
  addEventListener('afterprint', () => { if (before) setTheme(before, false); });
}

// Charts of series

const pointStyles = ['circle', 'rect', 'triangle', 'rectRot', 'star', 'crossRot', 'cross', 'rectRounded'];

// Bands, drawn under the lines, and error bars over points and bars.
const spreadPlugin = {
  id: 'spread',
  beforeDatasetsDraw(chart) {
    forSpreads(chart, (set, points, y, context) => {
      if (set.errorBars) return;
      context.fillStyle = set.borderColor;
      context.globalAlpha = 0.17;
      let run = [];
      const fill = () => {
        if (run.length > 1) {
          context.beginPath();
          for (const [x, low] of run) context.lineTo(x, low);
          for (const [x, , high] of run.reverse()) context.lineTo(x, high);
          context.fill();
        }
        run = [];
      };
      set.low.forEach((low, i) => {
        if (finite(low) && finite(set.high[i])) run.push([points[i].x, y(low), y(set.high[i])]);
        else fill();
      });
      fill();
    });
  },
  afterDatasetsDraw(chart) {
    forSpreads(chart, (set, points, y, context) => {
      if (!set.errorBars) return;
      context.strokeStyle = set.isBars ? style('--ink') : set.borderColor;
      context.lineWidth = 1.4;
      set.low.forEach((low, i) => {
        if (!finite(low) || !finite(set.high[i])) return;
        const x = points[i].x, bottom = y(low), top = y(set.high[i]);
        context.beginPath();
        context.moveTo(x, bottom);
        context.lineTo(x, top);
        for (const end of [bottom, top]) {
          context.moveTo(x - 4, end);
          context.lineTo(x + 4, end);
        }
        context.stroke();
      });
    });
  },
};

function forSpreads(chart, work) {
  const {ctx, chartArea, scales} = chart;
  ctx.save();
  ctx.beginPath();
  ctx.rect(chartArea.left, chartArea.top, chartArea.width, chartArea.height);
  ctx.clip();
  chart.data.datasets.forEach((set, i) => {
    if (!set.low || !chart.isDatasetVisible(i)) return;
    ctx.save();
    work(set, chart.getDatasetMeta(i).data, (value) => scales.y.getPixelForValue(value), ctx);
    ctx.restore();
  });
  ctx.restore();
}

function dataset(figure, series, i, count, dodge) {
  const positive = (axis, value) => (axis && axis.logarithmic && !(value > 0) ? NaN : value);
  const kind = series.style || 'line';
  const color = seriesColor(i);
  const few = series.x.length <= 60;
  return {
    type: kind === 'bars' ? 'bar' : 'line',
    label: series.name,
    note: series.note,
    data: series.x.map((x, k) => ({
      x: positive(figure.x, x) + (kind === 'points' ? dodge : 0),
      y: series.y[k] === null ? NaN : positive(figure.y, series.y[k]),
    })),
    low: series.low, high: series.high,
    errorBars: kind === 'points' || kind === 'bars',
    isBars: kind === 'bars',
    order: kind === 'bars' ? 1 : 0,  // the smaller is drawn above
    borderColor: color,
    backgroundColor: kind === 'bars' ? color + 'd9' : color,
    borderWidth: kind === 'bars' ? 0 : 2,
    borderDash: kind === 'dashed' || i >= 8 ? [6, 4] : [],
    showLine: kind !== 'points',
    spanGaps: false,
    clip: kind === 'bars' ? undefined : 8,
    pointStyle: pointStyles[i % pointStyles.length],
    pointRadius: kind === 'points' ? 4.5 : few && count <= 12 ? 3 : 0,
    pointHoverRadius: 6,
    pointHitRadius: 8,
    maxBarThickness: 70,
    tension: 0,
  };
}

function axisOptions(axis, range, extra) {
  return {
    type: axis.logarithmic ? 'logarithmic' : 'linear',
    title: {display: Boolean(axis.label), text: axis.label, color: style('--ink'), font: {size: 13}},
    min: axis.low, max: axis.high,
    suggestedMin: range && range[0], suggestedMax: range && range[1],
    grid: {color: style('--line'), tickColor: style('--line'), borderColor: style('--soft'), drawOnChartArea: extra.grid},
    ticks: {
      color: style('--soft'), autoSkip: true, maxRotation: 45, font: {size: 12},
      callback(value) {
        if (axis.logarithmic && ![1, 2, 5].includes(Number(value.toExponential().split('e')[0]))) return null;
        return number(value);
      },
      ...extra.ticks,
    },
    ...extra.more,
  };
}

// Room above and below, but not past zero: nothing is less than no time and no barrier.
function padded(range) {
  if (!range) return null;
  const room = 0.04 * (range[1] - range[0]);
  return [range[0] >= 0 ? Math.max(0, range[0] - room) : range[0] - room, range[1] + room];
}

function seriesOptions(figure) {
  const list = figure.series || [];
  const bars = list.some((series) => series.style === 'bars');
  const lines = list.some((series) => (series.style || 'line') === 'line' || series.style === 'dashed');
  const names = figure.categories;
  const yRange = padded(extent(list.flatMap((series) => [series.y, series.low, series.high])));
  const xRange = extent(list.map((series) => series.x));
  // One round only: a point in the middle of an axis of whole numbers.
  const room = bars ? 0.6 : xRange && xRange[0] === xRange[1] ? 1 : 0;
  const whole = list.every((series) => series.x.every((x) => Number.isInteger(x)));
  const x = names
      ? axisOptions({label: figure.x.label, low: -0.6, high: names.length - 0.4}, null, {
          grid: false,
          ticks: {stepSize: 1, autoSkip: names.length > 60, maxRotation: 70,
                  minRotation: names.reduce((sum, name) => sum + Math.min(28, name.length), 0) > 36 ? 35 : 0, callback: (value) => (Number.isInteger(value) ? shorten(names[value] || '', 28) : null)},
          more: {afterBuildTicks(scale) { scale.ticks = names.map((_, value) => ({value})); }},
        })
      : axisOptions(figure.x, null, {
          grid: false, ticks: whole && !figure.x.logarithmic ? {precision: 0} : {},
          more: xRange && !figure.x.logarithmic && lines
              ? {min: figure.x.low ?? xRange[0] - room, max: figure.x.high ?? xRange[1] + room} : {},
        });
  if (whole && room && !names) {
    const step = Math.max(1, Math.ceil((xRange[1] - xRange[0]) / 20));
    x.min = figure.x.low ?? xRange[0] - room;
    x.max = figure.x.high ?? xRange[1] + room;
    x.ticks.callback = (value) => number(value);
    x.afterBuildTicks = (scale) => {
      scale.ticks = [];
      for (let value = xRange[0]; value <= xRange[1]; value += step) scale.ticks.push({value});
    };
  }
  const y = axisOptions(figure.y, figure.stacked ? null : yRange, {grid: true});
  if (bars && !figure.y.logarithmic) y.beginAtZero = true;
  x.stacked = y.stacked = Boolean(figure.stacked);
  if (figure.stacked) x.ticks.autoSkip = true;
  return {
    responsive: true, maintainAspectRatio: false, animation: false, normalized: false,
    // A finger hits no single point: of curves the nearest x is read, wherever the chart is touched.
    interaction: lines && !names ? {mode: 'nearest', axis: 'x', intersect: false}
        : {mode: bars ? 'x' : 'nearest', intersect: false},
    scales: {x, y},
    plugins: {
      legend: {display: false},
      tooltip: {
        backgroundColor: style('--ink'), titleColor: style('--ground'), bodyColor: style('--ground'),
        footerColor: style('--ground'), footerFont: {weight: 'normal'}, padding: 9, boxPadding: 4,
        usePointStyle: true,
        filter: (item, index) => index < 12,
        callbacks: {
          title(items) {
            if (!items.length) return '';
            const at = items[0].parsed.x;
            return names ? names[Math.round(at)] || '' : `${figure.x.label || 'x'}: ${number(at)}`;
          },
          label(item) {
            const set = item.dataset, k = item.dataIndex;
            const ends = set.low && finite(set.low[k]) && finite(set.high[k])
                ? ` [${number(set.low[k])}, ${number(set.high[k])}]` : '';
            return ` ${shorten(set.label, 48)}: ${number(item.parsed.y)}${ends}`;
          },
          footer(items) {
            return items.slice(0, 3).filter((item) => item.dataset.note).map((item) => shorten(item.dataset.note, 80));
          },
        },
      },
    },
  };
}

const shorten = (text, most) => (text.length > most ? text.slice(0, most - 1) + '…' : text);

function seriesFigure(figure, box) {
  const list = figure.series || [];
  const hidden = new Set();
  const canvas = element('canvas', {role: 'img', 'aria-label': described(figure)});
  const holder = element('div', {class: 'chart'}, canvas);
  box.append(holder);
  const points = list.filter((series) => series.style === 'points').length;
  const item = {
    draw() {
      if (item.chart) item.chart.destroy();
      let point = 0;
      const data = list.map((series, i) => {
        // Points of several series at one category stand side by side.
        const aside = figure.categories && series.style === 'points' ? (point++ - (points - 1) / 2) * (0.5 / points) : 0;
        return {...dataset(figure, series, i, list.length, aside), hidden: hidden.has(i)};
      });
      item.chart = new Chart(canvas, {data: {datasets: data}, options: seriesOptions(figure), plugins: [spreadPlugin]});
      recolor();
    },
  };
  const marks = [];
  const recolor = () => marks.forEach(([mark, kind], i) => {
    mark.style.borderTopColor = seriesColor(i);
    mark.style.background = kind === 'points' || kind === 'bars' ? seriesColor(i) : 'none';
  });
  if (list.length > 1) {
    box.append(element('ul', {class: 'keys', 'aria-label': 'Series; press to hide or show one'}, ...list.map((series, i) => {
      const kind = i >= 8 && (series.style || 'line') === 'line' ? 'dashed' : series.style || 'line';
      const mark = element('i', {class: kind, 'aria-hidden': 'true'});
      marks.push([mark, kind]);
      const button = element('button', {type: 'button', 'aria-pressed': 'true', title: series.note}, mark, series.name);
      button.addEventListener('click', () => {
        if (!hidden.delete(i)) hidden.add(i);
        button.setAttribute('aria-pressed', String(!hidden.has(i)));
        item.chart.setDatasetVisibility(i, !hidden.has(i));
        item.chart.update();
      });
      return element('li', {}, button);
    })));
  }
  charts.push(item);
}

function described(figure) {
  const axes = [figure.y && figure.y.label, figure.x && figure.x.label].filter(Boolean).join(' against ');
  return [figure.title, axes, figure.caption].filter(Boolean).join('. ');
}

// Heat maps and surfaces

const viridis = ['#440154', '#472d7b', '#3b528b', '#2c728e', '#21918c', '#28ae80', '#5ec962', '#addc30', '#fde725'];
const bright = ['#f7fcf0', '#ccebc5', '#7bccc4', '#2b8cbe', '#084081'];

function scaleColor(colors, fraction) {
  const at = Math.min(1, Math.max(0, fraction)) * (colors.length - 1);
  const i = Math.min(colors.length - 2, Math.floor(at));
  const channel = (hex, k) => parseInt(hex.slice(1 + 2 * k, 3 + 2 * k), 16);
  return [0, 1, 2].map((k) => Math.round(channel(colors[i], k) + (at - i) * (channel(colors[i + 1], k) - channel(colors[i], k))));
}

function colorScale(grid, colors, low, high) {
  const bar = element('i', {'aria-hidden': 'true'});
  bar.style.background = `linear-gradient(to right, ${colors.join(',')})`;
  return element('p', {class: 'scale'}, element('span', {}, grid.label || ''), element('span', {}, number(low)), bar,
                 element('span', {}, number(high)));
}

function heatFigure(figure, box) {
  const grid = figure.grid;
  const range = extent(grid.values) || [0, 1];
  const share = (value) => (range[0] === range[1] ? 0.5 : (value - range[0]) / (range[1] - range[0]));
  const written = grid.column_names.length <= 14;
  const head = element('tr', {}, element('td'), ...grid.column_names.map((name) => element('th', {scope: 'col'}, name)));
  const readout = element('p', {class: 'readout', 'aria-live': 'off'});
  const rows = grid.values.map((values, r) => element('tr', {},
      element('th', {scope: 'row', title: grid.row_names[r]}, grid.row_names[r]),
      ...values.map((value, c) => {
        const cell = element('td', {}, written ? number(finite(value) && !Number.isInteger(value) ? Number(value.toPrecision(3)) : value) : '');
        cell.dataset.at = `${grid.row_names[r]}, ${grid.column_names[c]}: ${number(value)}`;
        if (!finite(value)) {
          cell.className = 'none';
          return cell;
        }
        const color = scaleColor(viridis, share(value));
        cell.style.background = `rgb(${color})`;
        cell.style.color = 0.3 * color[0] + 0.59 * color[1] + 0.11 * color[2] > 125 ? '#000' : '#fff';
        return cell;
      })));
  const table = element('table', {class: 'heat', 'aria-label': described(figure)}, element('thead', {}, head),
                        element('tbody', {}, ...rows));
  const say = (event) => { readout.textContent = event.target.dataset && event.target.dataset.at || readout.textContent; };
  table.addEventListener('pointerover', say);
  table.addEventListener('click', say);
  if (figure.x.label || figure.y.label)
    box.append(element('p', {class: 'caption'}, [figure.y.label && `Rows: ${figure.y.label}`,
                                                 figure.x.label && `columns: ${figure.x.label}`].filter(Boolean).join('; ') + '.'));
  box.append(element('div', {class: 'scroll', tabindex: '0', role: 'region', 'aria-label': figure.title}, table),
             readout, colorScale(grid, viridis, ...range));
}

// Where a level crosses a cell's sides, by linear interpolation (marching squares).
function contourSegments(grid, level, position) {
  const segments = [];
  const {values, rows, columns} = grid;
  for (let r = 0; r + 1 < rows.length; ++r) {
    for (let c = 0; c + 1 < columns.length; ++c) {
      const corners = [[r, c], [r, c + 1], [r + 1, c + 1], [r + 1, c]];
      if (corners.some(([i, k]) => !finite(values[i][k]))) continue;
      const crossed = [];
      corners.forEach(([i, k], n) => {
        const [j, l] = corners[(n + 1) % 4];
        const a = values[i][k], b = values[j][l];
        if ((a < level) === (b < level)) return;
        const t = (level - a) / (b - a);
        const [x0, y0] = position(columns[k], rows[i]), [x1, y1] = position(columns[l], rows[j]);
        crossed.push([x0 + t * (x1 - x0), y0 + t * (y1 - y0)]);
      });
      for (let n = 0; n + 1 < crossed.length; n += 2) segments.push([crossed[n], crossed[n + 1]]);
    }
  }
  return segments;
}

function ticks(low, high, count) {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((m) => m * power).find((candidate) => candidate >= rough);
  const list = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high * (1 + 1e-9) + 1e-12 * step; ++k) list.push(k * step);
  return list;
}

const along = (axis, value) => (axis.logarithmic ? Math.log10(value) : value);

// Where a surface's cells lie on its canvas, whose size `plane` is told at every drawing.
function surfacePlane(figure) {
  const grid = figure.grid;
  // A cell reaches half way to its neighbours.
  const edges = (axis, list) => {
    const at = list.map((value) => along(axis, value));
    const middle = at.slice(1).map((value, i) => (value + at[i]) / 2);
    const first = at.length > 1 ? at[0] : at[0] - 0.5, last = at.length > 1 ? at[at.length - 1] : at[0] + 0.5;
    return [first, ...middle, last];
  };
  const xs = edges(figure.x, grid.columns), ys = edges(figure.y, grid.rows);
  const area = {left: 62, top: 8, right: 12, bottom: 46};
  const fraction = (list, v) => (v - list[0]) / (list[list.length - 1] - list[0]);
  const plane = {
    figure, grid, xs, ys, area, width: 0, height: 0,
    range: extent(grid.values) || [0, 1],
    px: (v) => area.left + fraction(xs, v) * (plane.width - area.left - area.right),
    py: (v) => plane.height - area.bottom - fraction(ys, v) * (plane.height - area.top - area.bottom),
    // Row and column under a point of the canvas; null beside the cells.
    cellAt(left, top) {
      const x = (left - area.left) / (plane.width - area.left - area.right);
      const y = (plane.height - area.bottom - top) / (plane.height - area.top - area.bottom);
      const c = xs.slice(1).findIndex((edge) => fraction(xs, edge) >= x), r = ys.slice(1).findIndex((edge) => fraction(ys, edge) >= y);
      return x < 0 || y < 0 || c < 0 || r < 0 ? null : [r, c];
    },
  };
  return plane;
}

function drawCells(g, {grid, xs, ys, px, py, range}) {
  grid.values.forEach((row, r) => row.forEach((value, c) => {
    if (!finite(value)) return;
    const share = range[0] === range[1] ? 0.5 : (value - range[0]) / (range[1] - range[0]);
    g.fillStyle = `rgb(${scaleColor(bright, share)})`;
    const [x0, x1] = [px(xs[c]), px(xs[c + 1])].sort((a, b) => a - b), [y0, y1] = [py(ys[r]), py(ys[r + 1])].sort((a, b) => a - b);
    g.fillRect(x0, y0, x1 - x0 + 0.6, y1 - y0 + 0.6);
  }));
}

function drawPlate(g, text, x, y, align) {
  g.textAlign = align;
  g.textBaseline = 'middle';
  const size = g.measureText(text).width;
  g.fillStyle = 'rgba(255,255,255,.85)';
  g.fillRect(x - (align === 'center' ? size / 2 : align === 'right' ? size : 0) - 2, y - 7, size + 4, 14);
  g.fillStyle = '#000';
  g.fillText(text, x, y);
}

function drawContours(g, {figure, grid, px, py}) {
  for (const level of grid.contours || []) {
    const segments = contourSegments(grid, level, (x, y) => [px(along(figure.x, x)), py(along(figure.y, y))]);
    g.strokeStyle = '#000';
    g.lineWidth = 1;
    g.beginPath();
    for (const [[x0, y0], [x1, y1]] of segments) { g.moveTo(x0, y0); g.lineTo(x1, y1); }
    g.stroke();
    const middle = segments[Math.floor(segments.length / 3)];
    if (middle) drawPlate(g, number(level), middle[0][0], middle[0][1], 'center');
  }
}

function drawMarks(g, {figure, grid, px, py, width}) {
  for (const mark of grid.marks || []) {
    const x = px(along(figure.x, mark.x)), y = py(along(figure.y, mark.y));
    g.fillStyle = '#000';
    g.beginPath();
    g.arc(x, y, 4.5, 0, 2 * Math.PI);
    g.fill();
    drawPlate(g, mark.name, x + 8, y - 10, x > width * 0.75 ? 'right' : 'left');
  }
}

function drawAxes(g, {figure, xs, ys, px, py, area, width, height}) {
  g.strokeStyle = g.fillStyle = style('--soft');
  g.lineWidth = 1;
  g.strokeRect(area.left, area.top, width - area.left - area.right, height - area.top - area.bottom);
  g.textAlign = 'center';
  g.textBaseline = 'top';
  const shown = (axis, value) => number(axis.logarithmic ? 10 ** value : value);
  for (const value of ticks(xs[0], xs[xs.length - 1], Math.max(2, Math.min(8, width / 90))))
    g.fillText(shown(figure.x, value), px(value), height - area.bottom + 6);
  g.textAlign = 'right';
  g.textBaseline = 'middle';
  for (const value of ticks(ys[0], ys[ys.length - 1], 7)) g.fillText(shown(figure.y, value), area.left - 6, py(value));
  g.fillStyle = style('--ink');
  g.textAlign = 'center';
  g.fillText(figure.x.label, (area.left + width - area.right) / 2, height - 12);
  g.save();
  g.translate(12, (area.top + height - area.bottom) / 2);
  g.rotate(-Math.PI / 2);
  g.fillText(figure.y.label, 0, 0);
  g.restore();
}

function surfaceFigure(figure, box) {
  const grid = figure.grid, plane = surfacePlane(figure);
  const canvas = element('canvas', {role: 'img', 'aria-label': described(figure)});
  canvas.style.width = canvas.style.height = '100%';
  const holder = element('div', {class: 'chart'}, canvas);
  holder.style.height = '400px';
  const readout = element('p', {class: 'readout'});
  box.append(holder, readout, colorScale(grid, bright, ...plane.range));
  const item = {
    draw() {
      const ratio = devicePixelRatio || 1;
      plane.width = holder.clientWidth;
      plane.height = holder.clientHeight;
      if (!plane.width) return;
      canvas.width = plane.width * ratio;
      canvas.height = plane.height * ratio;
      const g = canvas.getContext('2d');
      g.scale(ratio, ratio);
      g.clearRect(0, 0, plane.width, plane.height);
      drawCells(g, plane);
      g.font = '12px system-ui, "Liberation Sans", sans-serif';
      drawContours(g, plane);
      drawMarks(g, plane);
      drawAxes(g, plane);
    },
  };
  const say = (event) => {
    const bounds = canvas.getBoundingClientRect();
    const cell = plane.cellAt(event.clientX - bounds.left, event.clientY - bounds.top);
    if (!cell) return;
    const [r, c] = cell;
    readout.textContent = `${figure.x.label}: ${number(grid.columns[c])}; ${figure.y.label}: ${number(grid.rows[r])}; ` +
                          `${grid.label}: ${number(grid.values[r][c])}`;
  };
  canvas.addEventListener('pointermove', say);
  canvas.addEventListener('pointerdown', say);  // a finger moves the page, and reads by a tap
  new ResizeObserver(() => item.draw()).observe(holder);
  charts.push(item);
}

// The numbers of a figure as a table, for those who cannot see it or want them.
function valuesOf(figure) {
  if (figure.grid) {
    const named = figure.grid.row_names;
    const columns = figure.grid.column_names || figure.grid.columns.map(number);
    return [['', ...columns], figure.grid.values.map((row, r) => [named ? named[r] : number(figure.grid.rows[r]), ...row.map(number)])];
  }
  const rows = [];
  for (const series of figure.series || []) {
    series.x.forEach((x, i) => rows.push([
      series.name, figure.categories ? figure.categories[x] || '' : number(x), number(series.y[i]),
      series.low ? number(series.low[i]) : '', series.high ? number(series.high[i]) : '']));
  }
  return [['series', figure.x.label || 'x', figure.y.label || 'y', 'low', 'high'], rows];
}

function filesOf(name, extensions, values) {
  const line = element('div', {class: 'files'});
  if (folder) {
    for (const [extension, word] of extensions)
      line.append(element('a', {href: `${folder}/${name}.${extension}`}, word));
  }
  if (values) {
    const more = element('details', {}, element('summary', {}, 'Values'));
    more.addEventListener('toggle', () => {
      if (more.open && more.childElementCount === 1) more.append(scrolled(plainTable(...values(), 500), name + ': values'));
    });
    line.append(more);
  }
  return line;
}

function drawFigure(figure) {
  const wide = figure.grid && figure.grid.column_names && figure.grid.column_names.length > 14 ||
      figure.categories && figure.categories.length > 10;
  const box = element('figure', {id: 'figure-' + figure.name, class: wide ? 'wide' : null}, element('h3', {}, figure.title));
  if (!figure.grid) seriesFigure(figure, box);
  else if (figure.grid.row_names) heatFigure(figure, box);
  else surfaceFigure(figure, box);
  if (figure.caption) box.append(element('figcaption', {}, figure.caption));
  box.append(filesOf(figure.name, [['svg', 'SVG'], ['csv', 'CSV'], ['gp', 'gnuplot']], () => valuesOf(figure)));
  return box;
}

// Tables

const numeric = (text) => /^\s*[−+-]?(\d|\.\d)/.test(text);
const value = (text) => parseFloat(text.replace('−', '-').replace(/,(?=\d{3})/g, ''));
const scrolled = (table, label) => element('div', {class: 'scroll', tabindex: '0', role: 'region', 'aria-label': label}, table);

function plainTable(columns, rows, most = Infinity) {
  const isNumber = columns.map((_, c) => {
    const filled = rows.map((row) => row[c]).filter((text) => text !== '' && text !== '–');
    return filled.length > 0 && filled.every(numeric);
  });
  const classes = columns.map((_, c) => isNumber[c] ? 'number' : rows.some((row) => row[c].length > 30) ? 'text' : null);
  const head = element('tr');
  const body = element('tbody');
  const fill = (list) => {
    body.replaceChildren(...list.slice(0, most).map((row) => element('tr', {}, ...row.map((text, c) => element('td', {class: classes[c]}, text)))));
    if (list.length > most)
      body.append(element('tr', {}, element('td', {colspan: columns.length}, `… and ${list.length - most} more; all are in the CSV`)));
  };
  columns.forEach((name, c) => {
    const cell = element('th', {scope: 'col', class: isNumber[c] ? 'number' : null});
    if (rows.length < 2) {
      cell.append(name);
    } else {
      const button = element('button', {type: 'button'}, name);
      button.addEventListener('click', () => {
        const down = cell.getAttribute('aria-sort') === 'ascending';
        for (const other of head.children) other.removeAttribute('aria-sort');
        cell.setAttribute('aria-sort', down ? 'descending' : 'ascending');
        const known = (text) => text !== '' && text !== '–';
        fill([...rows].sort((a, b) => {
          // what is not known stands last, whichever way
          if (!known(a[c]) || !known(b[c])) return Number(known(b[c])) - Number(known(a[c]));
          const order = isNumber[c] ? value(a[c]) - value(b[c]) : a[c].localeCompare(b[c]);
          return down ? -order : order;
        }));
      });
      cell.append(button);
    }
    head.append(cell);
  });
  fill(rows);
  return element('table', {}, element('thead', {}, head), body);
}

function drawTable(table) {
  return element('div', {class: 'table', id: 'table-' + table.name}, table.title ? element('h3', {}, table.title) : null,
                 scrolled(plainTable(table.columns, table.rows, 1000), table.title),
                 table.caption ? element('p', {class: 'caption'}, table.caption) : null,
                 filesOf(table.name, [['csv', 'CSV']]));
}

// The page

function drawSection(section, i) {
  const inside = [];
  for (const text of section.paragraphs || []) inside.push(element('p', {}, text));
  if (section.figures) inside.push(element('div', {class: 'figures'}, ...section.figures.map(drawFigure)));
  for (const table of section.tables || []) inside.push(drawTable(table));
  if (section.code) inside.push(element('pre', {tabindex: '0'}, element('code', {}, section.code)));
  const title = section.title ? element('h2', {}, section.title) : null;
  const id = 'section-' + (i + 1);
  if (!section.folded) return element('section', {id}, title, ...inside);
  return element('section', {id}, element('details', {class: 'folded'}, element('summary', {}, title), ...inside));
}

function drawFacts() {
  const facts = Object.entries(doc.facts || {});
  if (!facts.length) return null;
  return element('dl', {class: 'facts'}, ...facts.map(([name, fact]) => {
    const text = typeof fact === 'number' ? number(fact) : typeof fact === 'string' ? fact : JSON.stringify(fact);
    return element('div', {class: text.length > 14 ? 'long' : null}, element('dt', {}, name), element('dd', {}, text));
  }));
}

function drawPage() {
  document.getElementById('kind').textContent = 'Thalweg · ' + doc.kind;
  const main = document.getElementById('main');
  if (doc.summary) main.append(element('p', {class: 'summary'}, doc.summary));
  const facts = drawFacts();
  if (facts) main.append(facts);
  const sections = doc.sections || [];
  if (sections.length > 2)
    main.append(element('nav', {class: 'contents', 'aria-label': 'Contents'}, ...sections.map((section, i) =>
        section.title ? element('a', {href: '#section-' + (i + 1)}, section.title) : null)));
  main.append(...sections.map(drawSection));
}

drawPage();
startTheme();
document.documentElement.dataset.ready = 'true';
})();
