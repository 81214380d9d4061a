'use strict';
// Draws the charts of the page. What they show is in the element "data": `series` (name, colour, dashes), `charts`, and
// how much is smoothed at first.
(() => {
  const data = JSON.parse(document.getElementById('data').textContent);
  const shown = data.series.map(() => true);
  let smoothing = data.smoothing;

  const colour = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  /** A number in at most six digits. */
  const short = v => {
    if (v == null) return '–';
    const size = Math.abs(v);
    return size !== 0 && (size >= 1e7 || size < 1e-4) ? v.toExponential(5) : String(Number(v.toPrecision(6)));
  };

  /** A tick of an axis. */
  const tick = v => (v == null ? '' : Math.abs(v) >= 1e4 && v % 100 === 0 ? v / 1e3 + 'k' : short(v));

  /** A running mean that forgets, without the pull of where it began. */
  const smooth = ys => {
    let mean = 0, weight = 0;
    return ys.map(y => {
      mean = smoothing * mean + (1 - smoothing) * y;
      weight = smoothing * weight + (1 - smoothing);
      return mean / weight;
    });
  };

  /** The value nearest to a place: curves have values at places of their own. */
  const nearest = (u, s, i, x) => {
    const [xs, ys] = [u.data[0], u.data[s]];
    if (i == null) return null;
    let left = i, right = i;
    while (left >= 0 && ys[left] == null) left--;
    while (right < ys.length && ys[right] == null) right++;
    if (left < 0) return right < ys.length ? right : null;
    if (right >= ys.length) return left;
    return x - xs[left] <= xs[right] - x ? left : right;
  };

  const integers = [1, 2, 5];
  for (let i = 0; i < 9; i++) integers.push(...[10, 20, 50].map(n => n * 10 ** i));

  const place = chart => {
    const figure = document.getElementById(chart.id);
    const [host, tip] = [figure.querySelector('.plot'), figure.querySelector('.tip')];
    const logarithmic = figure.querySelector('.log');
    let plot = null;

    /** What the curves have under the cursor. */
    const tell = u => {
      const at = u.cursor.idxs, lines = [];
      u.series.forEach((series, s) => {
        const i = s > 0 && series.told && series.show ? at[s] : null;
        if (i == null || u.cursor.left < 0) return;
        const line = document.createElement('div'), dot = document.createElement('i');
        dot.style.background = series.told.colour;
        const x = u.data[0][i], why = series.told.why;
        const number = why ? why[series.told.xs.indexOf(x)] : short(series.told.ys[series.told.xs.indexOf(x)]);
        line.append(dot, `${series.told.name}, ${chart.x} ${x}: ${number}${why ? '' : chart.unit}`);
        lines.push(line);
      });
      tip.replaceChildren(...lines);
      tip.hidden = lines.length === 0;
      const right = u.cursor.left > u.over.clientWidth / 2;
      tip.style.left = right ? '' : `${u.over.offsetLeft + u.cursor.left + 12}px`;
      tip.style.right = right ? `${host.clientWidth - u.over.offsetLeft - u.cursor.left + 12}px` : '';
    };

    const draw = () => {
      const range = plot && [plot.scales.x.min, plot.scales.x.max];
      if (plot) plot.destroy();
      const [tables, lines, log] = [[], [{}], logarithmic.checked];
      const add = (xs, ys, line) => {
        // A logarithm has no place for what is not above 0.
        tables.push([xs, log ? ys.map(y => (y > 0 ? y : null)) : ys]);
        lines.push({ spanGaps: true, points: { show: xs.length < 40, size: 5 }, ...line });
      };
      for (const curve of chart.curves) {
        const { name, colour, dash } = data.series[curve.of];
        const line = { stroke: colour, fill: undefined, dash, show: shown[curve.of], of: curve.of };
        const told = { name, colour, xs: curve.x, ys: curve.y };
        const faint = chart.smooth && smoothing > 0 && curve.x.length > 2;
        const paths = chart.stepped ? uPlot.paths.stepped({ align: 1 }) : uPlot.paths.linear();
        add(curve.x, curve.y, { ...line, paths, width: faint ? 1 : 2, alpha: faint ? 0.3 : 1, told });
        if (faint) {
          const [xs, ys] = curve.means ?? [curve.x, curve.y];
          add(xs, smooth(ys), { ...line, paths, width: 2, points: { show: false } });
        }
        if (curve.marks) {
          const { x, y, why } = curve.marks;
          const points = { show: true, size: 9, fill: colour };
          const told = { name: `${name} skipped`, colour, xs: x, why };
          // Only under the cursor: the nearest one may be far away.
          add(x, y, { ...line, paths: () => null, points, told, exact: true });
        }
      }
      const axis = { stroke: colour('--soft'), grid: { stroke: colour('--line'), width: 1 }, ticks: { show: false } };
      const font = '11px system-ui, sans-serif';
      plot = new uPlot({
        width: Math.max(host.clientWidth, 200),
        height: 240,
        legend: { show: false },
        cursor: {
          drag: { x: true, y: false, dist: 4 },
          dataIdx: (u, s, i, x) => (u.series[s].exact ? near(u, s, i) : nearest(u, s, i, x)),
          points: { size: 7 },
        },
        scales: { x: { time: false }, y: { distr: log ? 3 : 1, log: chart.base } },
        axes: [
          { ...axis, font, incrs: integers, space: 60, size: 30, values: (u, all) => all.map(tick) },
          { ...axis, font, size: 58, values: (u, all) => all.map(v => (v == null ? '' : tick(v))) },
        ],
        series: lines,
        hooks: { setCursor: [tell] },
      }, tables.length ? uPlot.join(tables) : [[], []], host);
      if (range && range[0] != null) plot.setScale('x', { min: range[0], max: range[1] });
    };

    /** A mark within a few pixels. */
    const near = (u, s, i) => {
      const found = nearest(u, s, i, u.posToVal(u.cursor.left, 'x'));
      return found != null && Math.abs(u.valToPos(u.data[0][found], 'x') - u.cursor.left) < 6 ? found : null;
    };

    const whole = () => {
      const xs = plot.data[0];
      if (xs.length) plot.setScale('x', { min: xs[0], max: xs[xs.length - 1] });
    };

    logarithmic.addEventListener('change', draw);
    figure.querySelector('.whole').addEventListener('click', whole);
    host.addEventListener('keydown', event => {
      const step = { ArrowLeft: -8, ArrowRight: 8 }[event.key];
      if (!step) return;
      event.preventDefault();
      const left = Math.max(0, plot.cursor.left) + step;
      plot.setCursor({ left: Math.min(Math.max(left, 0), plot.over.clientWidth - 1), top: 20 });
    });
    host.addEventListener('blur', () => plot.setCursor({ left: -10, top: -10 }));
    new ResizeObserver(() => {
      const width = Math.max(host.clientWidth, 200);
      if (plot && plot.width !== width) plot.setSize({ width, height: 240 });
    }).observe(host);
    draw();
    return {
      draw,
      toggle: () => plot.series.forEach((line, s) => {
        if (s > 0 && line.show !== shown[line.of]) plot.setSeries(s, { show: shown[line.of] });
      }),
    };
  };

  const plots = data.charts.map(place);
  const redraw = () => plots.forEach(plot => plot.draw());

  document.querySelectorAll('input[data-series]').forEach(box => box.addEventListener('change', () => {
    shown[box.dataset.series] = box.checked;
    plots.forEach(plot => plot.toggle());
  }));
  const slider = document.getElementById('smoothing');
  slider.addEventListener('input', () => {
    smoothing = Number(slider.value);
    document.getElementById('smoothed').textContent = slider.value;
    redraw();
  });
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', redraw);
  // Paper is white.
  const print = on => () => {
    document.documentElement.classList.toggle('paper', on);
    redraw();
  };
  addEventListener('beforeprint', print(true));
  addEventListener('afterprint', print(false));
  document.documentElement.dataset.drawn = plots.length;
})();
