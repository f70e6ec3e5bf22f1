// The page's charts and the sorting of its list of trades. All numbers come from the payload or the tables.
(() => {
  "use strict";
  const root = document.documentElement;
  const payload = JSON.parse(document.getElementById("payload").textContent);
  const box = document.getElementById("chart");
  const { createChart, LineSeries, BaselineSeries } = LightweightCharts;

  const times = [payload.start];
  for (const step of payload.steps) times.push(times[times.length - 1] + step * payload.unit);
  const last = times.length - 1;

  const color = (name) => getComputedStyle(root).getPropertyValue(`--${name}`).trim();
  const format = (digits) => new Intl.NumberFormat("en-US", { signDisplay: "negative", minimumFractionDigits: digits, maximumFractionDigits: digits });
  const minus = (text) => text.replace("-", "−");
  const whole = format(0), cents = format(2), priced = format(payload.priceDigits);
  const written = (value, by) => minus(Math.abs(value) < 1e15 ? by.format(value) : value.toExponential(2));
  const money = (value) => written(value, Math.abs(value) < 100 ? cents : whole);
  const price = (value) => written(value, priced);
  const percent = (value, digits = 1) => `${written(value * 100, format(digits))}%`;
  const deepest = Math.min(...payload.drawdown);
  const fallDigits = deepest < -0.06 ? 0 : deepest < -0.006 ? 1 : 2;
  const moment = (time) => new Date(time * 1000).toISOString().slice(0, payload.daily ? 10 : 16).replace("T", " ");

  // ---- one chart with three panes (two where there is no price of one symbol): they share the time axis, so zoom, pan and crosshair are one -----------------
  box.hidden = false;
  const chart = createChart(box, {
    autoSize: true,
    layout: { attributionLogo: false, background: { color: "transparent" }, fontSize: 12, fontFamily: getComputedStyle(document.body).fontFamily },
    rightPriceScale: { borderVisible: false, minimumWidth: 72, entireTextOnly: true },
    timeScale: { minBarSpacing: 0.0001, fixLeftEdge: true, fixRightEdge: true, timeVisible: !payload.daily, secondsVisible: false, lockVisibleTimeRangeOnResize: true },
    crosshair: { mode: 0 },
    localization: { timeFormatter: moment },
    handleScroll: { vertTouchDrag: false },
    handleScale: { axisDoubleClickReset: true },
  });
  const series = (kind, pane, values, formatter, minMove, options) => {
    const made = chart.addSeries(kind, { lineWidth: 2, priceLineVisible: false, lastValueVisible: false, crosshairMarkerRadius: 3, priceFormat: { type: "custom", minMove, formatter }, ...options }, pane);
    made.setData(values.map((value, index) => ({ time: times[index], value })));
    return made;
  };
  const benchmark = series(LineSeries, 0, payload.benchmark, money, 0.01, { lineWidth: 1 });
  const strategy = series(LineSeries, 0, payload.equity, money, 0.01, {});
  const fall = series(BaselineSeries, 1, payload.drawdown, (value) => percent(value, fallDigits), 0.0001, { lineWidth: 1, baseValue: { type: "price", price: 0 } });
  const close = payload.close && series(LineSeries, 2, payload.close, price, 10 ** -payload.priceDigits, { lineWidth: 1 });
  [10, 4, 8].slice(0, close ? 3 : 2).forEach((share, pane) => chart.panes()[pane].setStretchFactor(share));
  chart.priceScale("right", 0).applyOptions({ scaleMargins: { top: 0.14, bottom: 0.06 } });
  chart.priceScale("right", 1).applyOptions({ scaleMargins: { top: 0.24, bottom: 0.08 } });
  if (close) chart.priceScale("right", 2).applyOptions({ scaleMargins: { top: 0.16, bottom: 0.08 } });

  // ---- trades: a wash behind the time held, a triangle at the entry, a dot at the exit ---------------------------
  const colors = {};
  let crowded = false;
  const marks = {
    attached() {},
    updateAllViews() {},
    paneViews: () => [layer("bottom", drawHeld), layer("top", drawMarks)],
  };
  const layer = (order, draw) => ({ zOrder: () => order, renderer: () => ({ draw: (target) => target.useMediaCoordinateSpace(draw) }) });
  const x = (index) => chart.timeScale().logicalToCoordinate(index);
  const visibleTrades = () => {
    const range = chart.timeScale().getVisibleLogicalRange();
    return range ? payload.trades.filter(([from, to]) => from <= range.to && (to ?? last) >= range.from) : [];
  };
  const drawHeld = ({ context, mediaSize }) => {
    for (const [from, to, , , , made] of visibleTrades()) {
      context.fillStyle = made > 0 ? colors.gainWash : colors.lossWash;
      const left = x(from);
      context.fillRect(left, 0, x(to ?? last) - left, mediaSize.height);
    }
  };
  const drawMarks = ({ context, mediaSize }) => {
    const trades = visibleTrades();
    crowded = trades.length > mediaSize.width / 2.5;
    if (crowded) return;
    const size = Math.max(1.8, Math.min(4.5, mediaSize.width / trades.length / 4));
    for (const [from, to, side, entry, exit, made] of trades) {
      const left = x(from), top = close.priceToCoordinate(entry);
      context.fillStyle = colors.strategy;
      context.beginPath();
      context.moveTo(left, top - size * side);
      context.lineTo(left - size, top + size * side);
      context.lineTo(left + size, top + size * side);
      context.fill();
      if (to === null) continue;
      context.fillStyle = made > 0 ? colors.gain : colors.loss;
      context.beginPath();
      context.arc(x(to), close.priceToCoordinate(exit), size * 0.85, 0, 2 * Math.PI);
      context.fill();
    }
  };
  close?.attachPrimitive(marks);

  // ---- colors follow the system's scheme -------------------------------------------------------------------------
  const paint = () => {
    Object.assign(colors, { strategy: color("strategy"), gain: color("gain"), loss: color("loss"), gainWash: color("gain-wash"), lossWash: color("loss-wash") });
    chart.applyOptions({
      layout: { textColor: color("soft"), panes: { separatorColor: color("rule"), separatorHoverColor: color("loss-wash") } },
      grid: { vertLines: { visible: false }, horzLines: { color: color("rule") } },
      timeScale: { borderColor: color("rule") },
      crosshair: { vertLine: { color: color("faint"), labelBackgroundColor: color("soft") }, horzLine: { color: color("faint"), labelBackgroundColor: color("soft") } },
    });
    strategy.applyOptions({ color: colors.strategy });
    benchmark.applyOptions({ color: color("benchmark") });
    close?.applyOptions({ color: color("price") });
    fall.applyOptions({ topLineColor: colors.loss, bottomLineColor: colors.loss, topFillColor1: "transparent", topFillColor2: "transparent", bottomFillColor1: color("fall-wash"), bottomFillColor2: color("fall-wash") });
  };
  paint();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", paint);

  // ---- legends that follow the crosshair, and a tooltip on trades -------------------------------------------------
  const element = (name, className) => Object.assign(document.createElement(name), { className });
  const legends = (close ? [0, 1, 2] : [0, 1]).map(() => box.appendChild(element("div", "legend")));
  const tip = box.appendChild(element("div", "tip"));
  tip.hidden = true;
  const item = (kind, label, value) => {
    const span = element("span", kind && `k-${kind}`);
    if (kind) span.append(document.createElement("i"));
    const strong = document.createElement("b");
    strong.textContent = value;
    span.append(label ? `${label} ` : "", strong);
    return span;
  };
  const tradeAt = (index) => payload.trades.findLastIndex(([from, to]) => from <= index && index <= (to ?? last));
  const describe = (number) => {
    const [, , side, , , made] = payload.trades[number];
    return `#${number + 1} ${side > 0 ? "long" : "short"} ${made > 0 ? "+" : ""}${percent(made, 2)}`;
  };
  const showLegends = (index) => {
    legends[0].replaceChildren(item("", "", moment(times[index])), item("strategy", "Strategy", money(payload.equity[index])), item("benchmark", "Buy & hold", money(payload.benchmark[index])));
    legends[1].replaceChildren(item("loss", "Drawdown", percent(payload.drawdown[index])));
    if (!close) return;
    const held = tradeAt(index);
    legends[2].replaceChildren(item("price", payload.symbol, price(payload.close[index])), ...(held < 0 ? [] : [item("", "trade", describe(held))]), ...(crowded ? [item("", "zoom in to see the trades", "")] : []));
  };
  const placeLegends = () => {
    const top = box.getBoundingClientRect().top;
    chart.panes().forEach((pane, index) => {
      const row = pane.getHTMLElement();
      if (row) legends[index].style.top = `${row.getBoundingClientRect().top - top + 6}px`;
    });
  };
  const rows = [...document.querySelectorAll("#trades tbody tr")];
  const cells = rows.map((row) => [...row.cells].map((cell) => cell.textContent.trim()));
  const nearest = ({ x: px, y: py }) => {
    let found = null, distance = 10;
    payload.trades.forEach(([from, to, , entry, exit], number) => {
      for (const [index, value, isEntry] of [[from, entry, true], [to, exit, false]]) {
        if (index === null) continue;
        const far = Math.hypot(x(index) - px, close.priceToCoordinate(value) - py);
        if (far < distance) [found, distance] = [{ number, isEntry }, far];
      }
    });
    return found;
  };
  const showTip = (event) => {
    const found = event.point && event.paneIndex === 2 && !crowded ? nearest(event.point) : null;
    tip.hidden = !found;
    if (!found) return;
    const [, side, entered, left, entry, exit, size, gain, made, , , reason] = cells[found.number];
    const head = document.createElement("b");
    head.textContent = found.isEntry ? `#${found.number + 1} ${side === "long" ? "bought" : "sold short"} ${entered}` : `#${found.number + 1} closed ${left}`;
    const lines = found.isEntry ? [`${size} at ${entry}`] : [`at ${exit} (${reason})`, `${gain} (${made})`];
    tip.replaceChildren(head, ...lines.flatMap((line) => [document.createElement("br"), line]));
    const pane = chart.panes()[2].getHTMLElement().getBoundingClientRect().top - box.getBoundingClientRect().top;
    tip.style.left = `${Math.max(0, Math.min(event.point.x + 14, box.clientWidth - tip.offsetWidth - 80))}px`;
    tip.style.top = `${Math.min(pane + event.point.y + 14, box.clientHeight - tip.offsetHeight - 30)}px`;
  };
  chart.subscribeCrosshairMove((event) => {
    const index = event.logical === undefined ? last : Math.max(0, Math.min(last, Math.round(event.logical)));
    showLegends(index);
    showTip(event);
  });
  showLegends(last);
  new ResizeObserver(placeLegends).observe(box);
  box.addEventListener("pointerup", () => requestAnimationFrame(placeLegends));

  // ---- ranges, scale, wheel and keys ------------------------------------------------------------------------------
  const scale = chart.timeScale();
  const show = (from, to) => scale.setVisibleLogicalRange({ from: Math.max(0, from), to: Math.min(last, to) });
  const DAY = 86400;
  const spans = [["1d", DAY], ["1w", 7 * DAY], ["1m", 30.5 * DAY], ["3m", 91 * DAY], ["1y", 365.25 * DAY], ["3y", 3 * 365.25 * DAY], ["5y", 5 * 365.25 * DAY], ["10y", 10 * 365.25 * DAY]]
    .filter(([, span]) => span < times[last] - times[0]).slice(-3);
  const ranges = document.getElementById("ranges");
  let settled = "";
  const seenRange = () => { const seen = scale.getVisibleLogicalRange(); return seen ? `${Math.round(seen.from)} ${Math.round(seen.to)}` : ""; };
  const press = (pressed) => [...ranges.children].forEach((each) => each.setAttribute("aria-pressed", String(each === pressed)));
  const range = (label, span) => {
    const made = Object.assign(document.createElement("button"), { type: "button", textContent: label });
    made.addEventListener("click", () => {
      settled = "";
      show(span === Infinity ? 0 : times.findIndex((time) => time >= times[last] - span), last);
      press(made);
      requestAnimationFrame(() => { settled = seenRange(); });
    });
    return ranges.appendChild(made);
  };
  const all = range("All", Infinity);
  spans.reverse().forEach(([label, span]) => range(label.toUpperCase(), span));
  scale.subscribeVisibleLogicalRangeChange(() => {
    if (settled && seenRange() !== settled) press(null);
  });
  const reset = () => { scale.fitContent(); all.click(); };
  chart.subscribeDblClick(reset);

  const linear = document.getElementById("linear"), log = document.getElementById("log");
  const setLog = (on) => {
    for (const pane of close ? [0, 2] : [0]) chart.priceScale("right", pane).applyOptions({ mode: on ? 1 : 0 });
    linear.setAttribute("aria-pressed", String(!on));
    log.setAttribute("aria-pressed", String(on));
  };
  linear.addEventListener("click", () => setLog(false));
  log.addEventListener("click", () => setLog(true));
  log.disabled = !payload.logAllowed;
  setLog(payload.log);

  // Without Ctrl or ⌘ the wheel scrolls the page, as everywhere else on it.
  box.addEventListener("wheel", (event) => { if (!event.ctrlKey && !event.metaKey) event.stopPropagation(); }, { capture: true, passive: true });
  box.addEventListener("keydown", (event) => {
    const seen = scale.getVisibleLogicalRange();
    const width = seen.to - seen.from, middle = (seen.from + seen.to) / 2;
    const moves = { ArrowLeft: [-0.1, 1], ArrowRight: [0.1, 1], "+": [0, 0.7], "=": [0, 0.7], "-": [0, 1 / 0.7] };
    if (event.key === "Home") reset();
    else if (moves[event.key]) {
      const [shift, zoom] = moves[event.key];
      const half = Math.min(last, Math.max(4, width * zoom)) / 2;
      const center = Math.max(half, Math.min(last - half, middle + shift * width));
      show(center - half, center + half);
    } else return;
    event.preventDefault();
  });

  // ---- the list of trades: sort by any column, find a trade on the chart ------------------------------------------
  const table = document.getElementById("trades");
  const key = (text) => {
    const plain = text.replace(/[,%+]/g, "").replace("−", "-");
    return plain === "–" ? null : plain !== "" && !Number.isNaN(Number(plain)) ? Number(plain) : text;
  };
  const sortBy = (column, heading) => {
    const ascending = heading.getAttribute("aria-sort") !== "ascending";
    const order = rows.map((_, number) => [key(cells[number][column]), number]);
    order.sort(([a, i], [b, j]) => (a === b ? i - j : a === null ? 1 : b === null ? -1 : (a < b ? -1 : 1) * (ascending ? 1 : -1)));
    table.tBodies[0].append(...order.map(([, number]) => rows[number]));
    for (const each of table.tHead.rows[0].cells) each.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", ascending ? "ascending" : "descending");
  };
  if (table) {
    [...table.tHead.rows[0].cells].forEach((heading, column) => {
      const made = Object.assign(document.createElement("button"), { type: "button", textContent: heading.textContent });
      made.addEventListener("click", () => sortBy(column, heading));
      heading.replaceChildren(made);
    });
    table.tBodies[0].addEventListener("click", (event) => {
      const row = event.target.closest("tr");
      if (!row || !close || String(getSelection())) return;
      const [from, to] = payload.trades[rows.indexOf(row)];
      const pad = Math.max(20, (to ?? last) - from);
      show(from - pad, (to ?? last) + pad);
      document.getElementById("charts").scrollIntoView();
      event.preventDefault();
    });
  }

  for (const each of document.querySelectorAll(".controls, .interactive")) each.hidden = false;
  reset();
  requestAnimationFrame(() => requestAnimationFrame(() => {
    placeLegends();
    showLegends(last);
    root.dataset.ready = "true";
  }));
})();
