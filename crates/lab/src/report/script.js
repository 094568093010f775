(() => {
'use strict';

const root = document.documentElement;
const themes = ['system', 'light', 'dark'];
const themeButton = document.getElementById('theme');
themeButton.addEventListener('click', () => {
  const next = themes[(themes.indexOf(root.dataset.theme || 'system') + 1) % 3];
  if (next === 'system') delete root.dataset.theme; else root.dataset.theme = next;
  themeButton.textContent = 'theme: ' + next;
});

// Fields of a file of comma-separated values, quoted ones too.
function parse(text) {
  const lines = [];
  let cells = [], cell = '', quoted = false;
  for (let i = 0; i < text.length; i++) {
    const c = text[i];
    if (quoted) {
      if (c !== '"') cell += c;
      else if (text[i + 1] === '"') { cell += '"'; i++; }
      else quoted = false;
    } else if (c === '"') quoted = true;
    else if (c === ',') { cells.push(cell); cell = ''; }
    else if (c === '\n') { cells.push(cell); lines.push(cells); cells = []; cell = ''; }
    else cell += c;
  }
  return lines;
}

// The link to the file is the only copy of the numbers.
function drawn(figure) {
  const href = figure.querySelector('a.csv').href;
  const lines = parse(decodeURIComponent(href.slice(href.indexOf(',') + 1)));
  return { head: lines[0], lines: lines.slice(1) };
}

function goTo(row) {
  if (!row) return;
  if (location.hash === '#' + row) reach(); else location.hash = row;
}

// Opens the table that holds the row.
function reach() {
  const id = location.hash.slice(1);
  const row = id && document.getElementById(id);
  document.querySelectorAll('.reached').forEach(old => old.classList.remove('reached'));
  if (!row) return;
  const fold = row.closest('details');
  if (fold) fold.open = true;
  if (!row.matches('tr')) return;
  row.classList.add('reached');
  row.scrollIntoView({ block: 'center' });
}
addEventListener('hashchange', reach);
if (location.hash) reach();

function short(text) {
  const value = Number(text);
  if (text === '' || Number.isNaN(value)) return text;
  return Number.isInteger(value) ? value.toLocaleString('en') : String(Number(value.toPrecision(5)));
}

// Shows text beside a place of an svg, inside of the canvas.
function show(canvas, svg, x, y, text) {
  const readout = canvas.querySelector('.readout');
  if (readout.textContent !== text) readout.textContent = text;
  const box = svg.getBoundingClientRect(), outer = canvas.getBoundingClientRect();
  const scale = box.width / svg.viewBox.baseVal.width;
  const left = box.left - outer.left + canvas.scrollLeft + x * scale;
  const top = box.top - outer.top + y * scale;
  const width = readout.offsetWidth, height = readout.offsetHeight;
  const right = canvas.scrollLeft + canvas.clientWidth - width - 4;
  readout.style.left = Math.max(canvas.scrollLeft, Math.min(left + 14, right)) + 'px';
  readout.style.top = (top - height - 12 > 0 ? top - height - 12 : Math.max(0, Math.min(top + 16, canvas.clientHeight - height))) + 'px';
  readout.classList.add('on');
}

function hide(canvas) {
  canvas.querySelector('.readout').classList.remove('on');
}

// Place of the pointer in the svg's own units.
function pointer(event, svg) {
  const box = svg.getBoundingClientRect();
  const scale = svg.viewBox.baseVal.width / box.width;
  return { x: (event.clientX - box.left) * scale, y: (event.clientY - box.top) * scale };
}

function pressed(button) {
  return button.getAttribute('aria-pressed') === 'true';
}

function flip(button) {
  button.setAttribute('aria-pressed', String(!pressed(button)));
}

// One svg of a plot with its series: [{name, mark, group, points: [{x, y, row, cells}]}].
function panelOf(svg, lines) {
  const names = axis => JSON.parse(svg.getAttribute(`data-${axis}-names`) || 'null');
  const number = (list, text) => list ? list.indexOf(text) : Number(text);
  const xNames = names('x'), yNames = names('y');
  const [left, top, width, height] = svg.dataset.frame.split(' ').map(Number);
  const series = [...svg.querySelectorAll('g.series')].map(group => ({ group, mark: group.dataset.mark, points: [], shown: true }));
  for (const cells of lines) {
    const [, at, , , x, y, row] = cells;
    series[Number(at)].points.push({ x: number(xNames, x), y: number(yNames, y), row, cells });
  }
  return { svg, series, left, top, width, height };
}

function placer(panel, axis, view) {
  let chosen = null;
  panel.svg.querySelectorAll(`g.ticks[data-axis=${axis}]`).forEach(ticks => {
    const is = ticks.dataset.view === view;
    ticks.classList.toggle('off', !is);
    if (is) chosen = ticks;
  });
  const [low, high] = chosen.dataset.span.split(' ').map(Number);
  const log = view.endsWith('log');
  return value => log ? Math.log(value / low) / Math.log(high / low) : (value - low) / (high - low);
}

function redraw(panel, xView, yView) {
  const placeX = placer(panel, 'x', xView), placeY = placer(panel, 'y', yView);
  for (const one of panel.series) {
    for (const point of one.points) {
      point.px = panel.left + placeX(point.x) * panel.width;
      point.py = panel.top + (1 - placeY(point.y)) * panel.height;
    }
    const pair = p => p.px.toFixed(2) + ',' + p.py.toFixed(2);
    const marks = one.group.children;
    if (['dots', 'rings', 'labelled'].includes(one.mark)) {
      one.points.forEach((p, i) => marks[i].setAttribute('transform', `translate(${p.px.toFixed(2)} ${p.py.toFixed(2)})`));
    } else if (one.mark === 'whiskers') {
      for (let i = 0; i + 1 < one.points.length; i += 2) {
        const [a, b] = [one.points[i], one.points[i + 1]];
        const line = marks[i / 2];
        line.setAttribute('x1', a.px.toFixed(2)); line.setAttribute('y1', a.py.toFixed(2));
        line.setAttribute('x2', b.px.toFixed(2)); line.setAttribute('y2', b.py.toFixed(2));
      }
    } else {
      marks[0].setAttribute('points', one.points.map(pair).join(' '));
    }
  }
}

function ringAt(panel, point) {
  document.querySelectorAll('.ring').forEach(ring => ring.remove());
  const ring = document.createElementNS('http://www.w3.org/2000/svg', 'circle');
  ring.setAttribute('class', 'ring');
  ring.setAttribute('cx', point.px); ring.setAttribute('cy', point.py); ring.setAttribute('r', 7);
  panel.svg.append(ring);
}

function setUpPlot(figure) {
  const canvas = figure.querySelector('.canvas');
  const { head, lines } = drawn(figure);
  const panels = [...canvas.querySelectorAll('svg.chart')].map((svg, i) =>
    panelOf(svg, lines.filter(cells => cells[0] === (i ? 'residuals' : 'main'))));
  const toggles = {};
  figure.querySelectorAll('[data-toggle]').forEach(button => { toggles[button.dataset.toggle] = button; });
  const on = name => Boolean(toggles[name]) && pressed(toggles[name]);
  // While the keyboard walks, pages scroll below a pointer that rests: that is no move of it.
  let chosen = null, byKey = false;

  const first = (panel, axis) => panel.svg.querySelector(`g.ticks[data-axis=${axis}]:not(.off)`).dataset.view;
  const start = panels.map(panel => ({ x: first(panel, 'x'), y: first(panel, 'y') }));
  const view = (name, fallback) => (on('small') ? 'small-' : '') + (toggles[name] ? (on(name) ? 'log' : 'linear') : fallback);
  const draw = () => {
    panels.forEach((panel, i) => redraw(panel, view('log-x', start[i].x), i ? (on('small') ? 'small-' : '') + 'linear' : view('log-y', start[i].y)));
    document.querySelectorAll('.ring').forEach(ring => ring.remove());
    hide(canvas);
  };
  draw();
  Object.values(toggles).forEach(button => button.addEventListener('click', () => { flip(button); draw(); }));

  figure.querySelectorAll('.legend button').forEach(button => button.addEventListener('click', () => {
    flip(button);
    const one = panels[0].series[Number(button.dataset.series)];
    one.shown = pressed(button);
    one.group.classList.toggle('off', !one.shown);
  }));

  const inside = (panel, p) => p.px >= panel.left - 1 && p.px <= panel.left + panel.width + 1 && p.py >= panel.top - 1 && p.py <= panel.top + panel.height + 1;
  const tell = (panel, point) => {
    chosen = { panel, point };
    const [, , name, , x, y, row] = point.cells;
    const unit = panel === panels[0] ? head[5] : 'distance from the fit';
    show(canvas, panel.svg, point.px, point.py, `${name}\n${head[4]}: ${short(x)}\n${unit}: ${short(y)}${row ? '\nrow ' + row : ''}`);
    ringAt(panel, point);
    canvas.classList.toggle('linked', Boolean(row));
  };
  for (const panel of panels) {
    panel.svg.addEventListener('pointermove', event => {
      if (byKey && !event.movementX && !event.movementY) return;
      byKey = false;
      const at = pointer(event, panel.svg);
      let best = null, least = 40;
      for (const one of panel.series.filter(one => one.shown)) {
        // A run is meant rather than the line through it.
        const handicap = one.mark === 'dots' || one.mark === 'labelled' ? 0 : 8;
        for (const point of one.points) {
          const distance = Math.hypot(point.px - at.x, point.py - at.y) + handicap;
          if (distance < least && inside(panel, point)) { least = distance; best = point; }
        }
      }
      if (best) tell(panel, best); else { chosen = null; hide(canvas); }
    });
    panel.svg.addEventListener('pointerleave', () => { if (!byKey) hide(canvas); });
    panel.svg.addEventListener('click', () => { if (chosen) goTo(chosen.point.row); });
  }
  canvas.addEventListener('keydown', event => {
    const panel = panels[0];
    const shown = panel.series.filter(one => one.shown && one.points.length);
    if (event.key === 'Enter' && chosen) return goTo(chosen.point.row);
    if (event.key === 'Escape') return hide(canvas);
    const step = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] }[event.key];
    if (!step || !shown.length) return;
    event.preventDefault();
    byKey = true;
    let series = chosen ? shown.findIndex(one => one.points.includes(chosen.point)) : -1;
    let place = series < 0 ? -1 : shown[series].points.indexOf(chosen.point);
    if (series < 0) series = Math.max(0, shown.findIndex(one => one.mark === 'dots'));
    series = (series + step[1] + shown.length) % shown.length;
    const points = shown[series].points;
    place = Math.min(Math.max(place + step[0], 0), points.length - 1);
    tell(panel, points[place]);
  });
  canvas.addEventListener('blur', () => hide(canvas));
}

function setUpStack(figure) {
  const canvas = figure.querySelector('.canvas');
  const { head, lines } = drawn(figure);
  const modes = [...canvas.querySelectorAll('[data-mode]')];
  const parts = modes[0].querySelectorAll('g.series').length;
  const button = figure.querySelector('[data-toggle=share]');
  button.addEventListener('click', () => {
    flip(button);
    modes.forEach(mode => mode.classList.toggle('off', (mode.dataset.mode === 'share') !== pressed(button)));
    hide(canvas);
  });
  figure.querySelectorAll('.legend button').forEach(entry => entry.addEventListener('click', () => {
    flip(entry);
    canvas.querySelectorAll(`g.series[data-series="${entry.dataset.series}"]`).forEach(group => group.classList.toggle('off', !pressed(entry)));
  }));
  let chosen = -1;
  const tell = at => {
    const mode = modes.find(one => !one.classList.contains('off'));
    const [bar, part, length, share, row] = lines[at];
    const rect = mode.querySelectorAll('g.series')[at % parts].children[Math.floor(at / parts)];
    canvas.querySelectorAll('.chosen').forEach(old => old.classList.remove('chosen'));
    rect.classList.add('chosen');
    chosen = at;
    const x = Number(rect.getAttribute('x')) + Number(rect.getAttribute('width')) / 2;
    show(canvas, rect.ownerSVGElement, x, Number(rect.getAttribute('y')), `${bar}\n${part}: ${short(length)}, ${short(share)} %\n${head[2]}; row ${row}`);
  };
  for (const mode of modes) {
    mode.querySelectorAll('g.series').forEach((group, part) => [...group.children].forEach((rect, bar) => {
      rect.addEventListener('pointerenter', () => tell(bar * parts + part));
      rect.addEventListener('pointerleave', () => hide(canvas));
      rect.addEventListener('click', () => goTo(lines[bar * parts + part][4]));
    }));
  }
  canvas.addEventListener('keydown', event => {
    if (event.key === 'Enter' && chosen >= 0) return goTo(lines[chosen][4]);
    if (event.key === 'Escape') return hide(canvas);
    const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: parts, ArrowUp: -parts }[event.key];
    if (!step) return;
    event.preventDefault();
    const next = chosen < 0 ? 0 : chosen + step;
    if (next >= 0 && next < lines.length) tell(next);
  });
  canvas.addEventListener('blur', () => hide(canvas));
}

document.querySelectorAll('figure.plot').forEach(setUpPlot);
document.querySelectorAll('figure.stack').forEach(setUpStack);
})();
