'use strict';
// The live page: follows /api/events and draws what it says. Everything from the run is set as text, never as markup.

const final = ['finished', 'stopped', 'interrupted', 'failed'];
const mostPoints = 1500;  // of a curve: more than a screen has columns
const byId = id => document.getElementById(id);
const color = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

let rounds = [];  // what the curves show of each: a long run has many
let last = null;  // the last one whole
let described = null;  // which description of the run the page shows
let state = {progress: {}, control: {live: false}};
let charts = null;
let source = null;
let scheduled = false;
let announcedAt = 0;

function duration(seconds) {
  if (seconds < 1) return Math.round(seconds * 1000) + ' ms';
  if (seconds < 60) return (seconds < 10 ? seconds.toFixed(1) : Math.round(seconds)) + ' s';
  const whole = Math.round(seconds), minutes = Math.floor(whole / 60);
  if (minutes < 60) return minutes + ' min ' + whole % 60 + ' s';
  return Math.floor(minutes / 60) + ' h ' + minutes % 60 + ' min';
}
const percent = fraction => (100 * fraction).toFixed(2) + '%';
const isNumber = value => typeof value === 'number' && Number.isFinite(value);

function setText(id, text) {
  const element = byId(id);
  if (element.textContent !== text) element.textContent = text;
}

function announce(text) {
  // A screen reader that is told of every short round says nothing else.
  if (Date.now() - announcedAt < 5000) return;
  announcedAt = Date.now();
  byId('announce').textContent = text;
}

/* Curves */

function curve(read) {
  const points = [];
  for (const round of rounds) {
    const y = read(round);
    if (isNumber(y)) points.push({x: round.round, y});
  }
  const stride = Math.ceil(points.length / mostPoints);
  return stride > 1 ? points.filter((_, i) => i % stride === 0 || i === points.length - 1) : points;
}
const brief = ({round, test, train}) => ({
  round, accuracy: isNumber(test?.accuracy) ? 100 * test.accuracy : undefined, testLoss: test?.loss, trainLoss: train?.loss,
});

function chart(id, unit, lines) {
  return new Chart(byId(id), {
    type: 'line',
    data: {datasets: lines.map(line => ({label: line.label, data: [], borderWidth: 2, borderDash: line.dash, tension: 0}))},
    options: {
      animation: false, responsive: true, maintainAspectRatio: false, parsing: false, normalized: true,
      interaction: {mode: 'nearest', axis: 'x', intersect: false},
      scales: {
        x: {type: 'linear', title: {display: true, text: 'round'}, ticks: {precision: 0, maxRotation: 0}},
        y: {title: {display: true, text: unit}, ticks: {maxTicksLimit: 7}, grace: '5%'},
      },
      plugins: {
        legend: {display: lines.length > 1, labels: {boxWidth: 24, boxHeight: 1}},
        tooltip: {callbacks: {title: items => items.length ? 'round ' + items[0].parsed.x : ''}},
      },
    },
  });
}

function makeCharts() {
  charts = {
    accuracy: chart('accuracy', 'test accuracy (%)', [{label: 'test'}]),
    loss: chart('loss', 'loss (nats)', [{label: 'test'}, {label: 'training, mean of clients', dash: [6, 4]}]),
  };
  paint();
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => { paint(); draw(); });
}

function paint() {
  const lines = [color('--blue'), color('--orange')];
  for (const one of Object.values(charts)) {
    one.data.datasets.forEach((set, i) => { set.borderColor = set.backgroundColor = set.pointBorderColor = set.pointBackgroundColor = lines[i]; });
    one.options.color = color('--faint');
    for (const axis of Object.values(one.options.scales)) {
      axis.grid = {color: color('--line')};
      axis.ticks.color = color('--faint');
      axis.title.color = color('--faint');
    }
  }
}

function drawCharts() {
  const total = state.progress.rounds;
  const curves = {
    accuracy: [curve(round => round.accuracy)],
    loss: [curve(round => round.testLoss), curve(round => round.trainLoss)],
  };
  for (const [name, sets] of Object.entries(curves)) {
    const one = charts[name];
    sets.forEach((points, i) => {
      one.data.datasets[i].data = points;
      one.data.datasets[i].pointRadius = points.length > 20 ? 0 : 2.5;
    });
    // The axis is as long as the run, as far as that leaves the curve to be seen.
    const newest = rounds.length ? rounds[rounds.length - 1].round : 1;
    one.options.scales.x.min = rounds.length ? Math.min(1, rounds[0].round) : 1;
    one.options.scales.x.max = Math.max(2, total > 0 && total <= 4 * newest ? total : Math.ceil(1.25 * newest));
    one.update();
  }
  const accuracies = curves.accuracy[0];
  if (accuracies.length) {
    const newest = accuracies[accuracies.length - 1].y, best = accuracies.reduce((a, b) => Math.max(a, b.y), 0);
    setText('accuracy-value', newest.toFixed(2) + '% · best ' + best.toFixed(2) + '%');
    byId('accuracy').setAttribute('aria-label', 'Test accuracy by round: ' + newest.toFixed(2) + '% after round ' +
      accuracies[accuracies.length - 1].x + ', best ' + best.toFixed(2) + '%');
  } else {
    setText('accuracy-value', '');
  }
  const losses = curves.loss.map(points => points.length ? points[points.length - 1].y.toPrecision(4) : '–');
  setText('loss-value', rounds.length ? 'test ' + losses[0] + ' · training ' + losses[1] : '');
}

/* Bars and lists */

function bars(id, rows) {
  const list = byId(id);
  while (list.children.length > rows.length) list.lastChild.remove();
  rows.forEach(({name, share, value}, i) => {
    let item = list.children[i];
    if (!item) {
      item = document.createElement('li');
      const track = document.createElement('div');
      track.className = 'bar';
      track.append(document.createElement('div'));
      item.append(document.createElement('span'), track, document.createElement('span'));
      list.append(item);
    }
    item.children[0].textContent = item.children[0].title = name;
    item.children[1].firstChild.style.width = 100 * Math.min(1, Math.max(0, share)) + '%';
    item.children[2].textContent = value;
  });
}

function drawLast(round) {
  const seconds = round?.seconds ?? {};
  const total = seconds.total;
  const ranks = Array.isArray(seconds.ranks) ? seconds.ranks : [];
  bars('ranks', ranks.filter(isNumber).map((busy, i) => {
    const share = total > 0 ? busy / total : 0;
    return {name: 'rank ' + i, share, value: Math.round(100 * share) + '%'};
  }));
  const rows = [];
  if (isNumber(seconds.clients)) rows.push({name: 'clients', time: seconds.clients});
  for (const stage of round?.stages ?? []) if (isNumber(stage.seconds)) rows.push({name: stage.name, time: stage.seconds});
  if (isNumber(seconds.evaluation)) rows.push({name: 'evaluation', time: seconds.evaluation});
  bars('stages', rows.map(({name, time}) => ({name, share: total > 0 ? time / total : 0, value: duration(time)})));
  setText('stages-total', round ? 'Round ' + round.round + (isNumber(total) ? ': ' + duration(total) + ' in all' : '') : 'The last round');
  const ids = round?.cohort ?? [], size = round?.cohort_size ?? ids.length;
  setText('cohort-size', round ? size + (size === 1 ? ' client' : ' clients') + ' in round ' + round.round +
    (round.failures ? ', ' + round.failures + ' of others diverged' : '') + (size > ids.length ? '; the first ' + ids.length + ':' : '') : 'Clients of the last round');
  const key = ids.join();
  const list = byId('cohort');
  if (list.dataset.key !== key) {
    list.dataset.key = key;
    list.replaceChildren(...ids.map(id => {
      const item = document.createElement('li');
      item.textContent = id;
      return item;
    }));
  }
}

/* Progress and buttons */

function drawProgress() {
  const {progress, control} = state;
  const total = progress.rounds || 0, done = progress.done || 0;
  const share = total > 0 ? Math.min(1, done / total) : 0;
  const phase = progress.phase ?? '…';
  const isFinal = final.includes(phase);
  setText('phase', control.stop && !isFinal ? 'stopping' : control.pause && phase === 'running' ? 'pausing' : phase);
  byId('phase').dataset.phase = phase;
  const current = Math.min(total, Math.floor(done) + (isFinal || phase === 'following' || phase === 'paused' ? 0 : 1));
  setText('where', total > 0 ? 'Round ' + current + ' of ' + total : 'No round yet');
  setText('eta', isNumber(progress.seconds_left) && !isFinal ? 'about ' + duration(progress.seconds_left) + ' left'
    : isNumber(progress.elapsed) && isFinal ? 'after ' + duration(progress.elapsed) : '');
  byId('bar').setAttribute('aria-valuenow', Math.round(100 * share));
  byId('bar-fill').style.width = 100 * share + '%';
  setText('what', progress.what || '\u00a0');
  byId('actions').hidden = !control.live || isFinal;
  setText('pause', control.pause ? 'Resume' : 'Pause');
  setText('checkpoint', control.checkpoint && phase !== 'paused' ? 'Checkpoint after this round' : 'Checkpoint now');
  byId('pause').disabled = control.stop === true;
  byId('checkpoint').disabled = control.checkpoint === true || control.stop === true;
  byId('stop').disabled = control.stop === true;
  document.title = (total > 0 ? Math.round(100 * share) + '% · ' : '') + byId('name').textContent + ' · Thalweg';
}

function draw() {
  scheduled = false;
  drawProgress();
  drawCharts();
  drawLast(last);
}
function schedule() {
  if (scheduled) return;
  scheduled = true;
  requestAnimationFrame(draw);
}

async function act(action, done) {
  setText('answer', '');
  try {
    const response = await fetch('/api/' + action, {method: 'POST', headers: {'X-Thalweg': '1'}});
    const answer = await response.json();
    if (response.ok) {
      state.control = answer;
      setText('answer', done);
      schedule();
    } else {
      setText('answer', answer.error);
    }
  } catch {
    setText('answer', 'The program does not answer; nothing was done.');
  }
}

function wireButtons() {
  byId('pause').addEventListener('click', () => {
    if (state.control.pause) act('resume', 'Training goes on.');
    else act('pause', 'Training pauses when this round is done.');
  });
  byId('checkpoint').addEventListener('click', () => act('checkpoint', state.progress.phase === 'paused'
    ? 'The checkpoint is written at once.' : 'A checkpoint is written when this round is done.'));
  const dialog = byId('confirm');
  byId('stop').addEventListener('click', () => dialog.showModal());
  byId('confirm-no').addEventListener('click', () => dialog.close());
  byId('confirm-yes').addEventListener('click', () => {
    dialog.close();
    act('stop', 'The run stops when this round is done.');
  });
}

/* The connection */

function connection(name, text) {
  byId('connection').dataset.state = name;
  setText('connection-text', text);
}

async function describe(version) {
  if (described === version) return;
  described = version;
  try {
    const response = await fetch('/api/state');
    if (!response.ok) throw new Error(response.statusText);
    const {run} = await response.json();
    setText('name', run.name || run.folder || 'Thalweg');
    setText('config', run.config || '');
    const facts = [['folder', run.folder], ['ranks', run.ranks], ['parameters', run.parameters?.toLocaleString('en')], ['clients', run.clients]];
    byId('facts').replaceChildren(...facts.filter(([, value]) => value !== undefined).flatMap(([name, value]) => {
      const term = document.createElement('dt'), text = document.createElement('dd');
      term.textContent = name;
      text.textContent = value;
      return [term, text];
    }));
    schedule();
  } catch {
    described = null;  // the next state asks again; the event stream says that the program does not answer
  }
}

function connect() {
  source = new EventSource('/api/events');
  source.addEventListener('open', () => { connection('open', 'live'); described = null; });
  source.addEventListener('reset', () => { rounds = []; last = null; schedule(); });
  source.addEventListener('round', event => {
    last = JSON.parse(event.data);
    const round = brief(last);
    rounds.push(round);
    announce('Round ' + round.round + ' is done' + (round.accuracy === undefined ? '' : ', test accuracy ' + round.accuracy.toFixed(1) + '%'));
    schedule();
  });
  source.addEventListener('state', event => {
    const was = state.progress.phase;
    state = JSON.parse(event.data);
    describe(state.described);
    if (was !== state.progress.phase && was !== undefined) byId('announce').textContent = 'The run is ' + state.progress.phase;
    schedule();
  });
  source.addEventListener('error', () => {
    const ended = state.control.live && final.includes(state.progress.phase);
    if (ended) {
      source.close();
      connection('ended', 'the program has ended');
      return;
    }
    connection('lost', 'reconnecting…');
    if (source.readyState === EventSource.CLOSED) setTimeout(connect, 3000);  // refused: it would not try again by itself
  });
}

makeCharts();
wireButtons();
connect();
