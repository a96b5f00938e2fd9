
"use strict";
(() => {
  // ---- Small helpers ----------------------------------------------------------------------------
  const find = (selector, root = document) => root.querySelector(selector);
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const live = find("#live");
  const form = find("#filters");
  const dialog = find("#detail");

  // Text is always set as text: names in the data may look like HTML.
  const make = (tag, attributes = {}, ...children) => {
    const svg = ["svg", "path", "line", "text", "g"].includes(tag);
    const element = svg
      ? document.createElementNS("http://www.w3.org/2000/svg", tag)
      : document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  };

  // The data is read when somebody asks for a run, so that the page opens without waiting for it.
  let parsed = null;
  const data = () => (parsed ??= JSON.parse(find("#data").textContent));
  const pooled = (number) => data().pool[number];

  // ---- Sorting ----------------------------------------------------------------------------------
  const sort = (button) => {
    const heading = button.closest("th");
    const table = button.closest("table");
    const up = "up" in button.dataset;
    const first = up ? "ascending" : "descending";
    const other = up ? "descending" : "ascending";
    const order = heading.getAttribute("aria-sort") === first ? other : first;
    for (const th of all("thead th", table)) th.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", order);

    const place = [...heading.parentNode.children].indexOf(heading);
    const value = (row) => {
      const text = row.children[place].dataset.v;
      if (text === undefined) return null;
      return text === "" || Number.isNaN(Number(text)) ? text : Number(text);
    };
    const after = (row) => "after" in row.children[place].dataset;
    const sign = order === "ascending" ? 1 : -1;
    for (const body of table.tBodies) {
      const rows = [...body.rows].filter((row) => !row.classList.contains("group"));
      rows.sort((a, b) => {
        const [x, y] = [value(a), value(b)];
        // A row without a value is last in either order.
        if (x === null || y === null) return (x === null) - (y === null);
        // The mean of a row with a run that is missing, failed or diverged is not that of the row.
        if (after(a) !== after(b)) return after(a) - after(b);
        if (typeof x === "number" && typeof y === "number") return sign * (x - y);
        return sign * String(x).localeCompare(String(y));
      });
      body.append(...rows);
    }
    live.textContent = `Sorted by ${button.textContent}, ${order}.`;
  };

  // ---- Filters ----------------------------------------------------------------------------------
  const filter = () => {
    const wanted = Object.fromEntries(new FormData(form));
    const words = wanted.method.toLowerCase().split(/[\s,]+/).filter(Boolean);
    const fits = (element) =>
      (!wanted.dataset || element.dataset.dataset === wanted.dataset) &&
      (!wanted.noise || element.dataset.noise === wanted.noise);

    let shown = 0;
    let total = 0;
    for (const section of all(".suite")) {
      section.hidden = Boolean(wanted.suite) && section.dataset.suite !== wanted.suite;
      for (const row of all("tr[data-row]", section)) {
        const name = row.dataset.row.toLowerCase();
        row.hidden = words.length > 0 && !words.some((word) => name.includes(word));
      }
      for (const body of all(".board tbody", section)) {
        const rows = all("tr[data-row]", body);
        const visible = rows.filter((row) => !row.hidden).length;
        body.hidden = !fits(body) || visible === 0;
        total += rows.length;
        if (!section.hidden && !body.hidden) shown += visible;
      }
    }

    // Columns are hidden by a rule for each, and not cell by cell.
    const columns = new Set(all(".board th[data-c]").map((th) => th.dataset.c));
    const names = new Set(["row", ...wanted.metric.split(" ")]);
    const hidden = [...columns].filter((name) => !names.has(name));
    for (const th of all(".glance th[data-dataset]")) if (!fits(th)) hidden.push(th.dataset.c);
    find("#columns").textContent = hidden.map((name) => `[data-c="${name}"]{display:none}`).join("");
    return `${shown} of ${total} lines are shown.`;
  };

  // ---- The curves of some runs ------------------------------------------------------------------
  const [WIDTH, HEIGHT, LEFT, BOTTOM] = [320, 170, 38, 22];
  const DASHES = ["", "6 3", "2 3", "8 3 2 3", "4 2", "1 2"];
  const style = (place) => {
    const dash = DASHES[Math.floor(place / 6) % 6] || DASHES[place % 6];
    return `stroke:var(--s${place % 6});stroke-dasharray:${dash || "none"}`;
  };

  const ticks = (low, high) => {
    const rough = (high - low) / 4 || 1;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 2.5, 5, 10].map((times) => times * power).find((size) => size >= rough);
    const found = [];
    for (let value = Math.ceil(low / step) * step; value <= high + step / 1e6; value += step) {
      found.push(Number(value.toPrecision(6)));
    }
    return found;
  };

  // `series` is a list of {name, epochs, values}; a value may be null.
  const chart = (title, series, unit) => {
    const values = series.flatMap((one) => one.values.filter((value) => value !== null));
    let [low, high] = [Math.min(...values), Math.max(...values)];
    if (low === high) [low, high] = [low - 1, high + 1];
    const last = Math.max(1, ...series.map((one) => one.epochs.at(-1)));
    const x = (epoch) => LEFT + ((WIDTH - LEFT - 6) * epoch) / last;
    const y = (value) => 6 + ((HEIGHT - BOTTOM - 6) * (high - value)) / (high - low);

    const ends = series.map((one) => `${one.name} ends at ${one.values.at(-1) ?? "no value"}`);
    const svg = make("svg", {
      viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
      role: "img",
      "aria-label": `${title} by epoch: ${ends.join(", ")}`,
    });
    for (const tick of ticks(low, high)) {
      svg.append(
        make("line", { x1: LEFT, x2: WIDTH - 6, y1: y(tick), y2: y(tick) }),
        make("text", { x: LEFT - 6, y: y(tick) + 4, "text-anchor": "end" }, String(tick)),
      );
    }
    svg.append(
      make("text", { x: LEFT, y: HEIGHT - 4 }, "epoch 1"),
      make("text", { x: WIDTH - 6, y: HEIGHT - 4, "text-anchor": "end" }, String(last + 1)),
    );
    series.forEach((one, place) => {
      let path = "";
      let pen = "M";
      one.values.forEach((value, i) => {
        if (value === null) {
          pen = "M";
          return;
        }
        path += `${pen}${x(one.epochs[i]).toFixed(1)} ${y(value).toFixed(1)}`;
        pen = "L";
      });
      svg.append(make("path", { d: path, style: style(place) }));
    });

    const key = make("ul", { class: "key" });
    series.forEach((one, place) => {
      const sample = make("svg", { viewBox: "0 0 26 10", "aria-hidden": "true" });
      sample.append(make("path", { d: "M0 5H26", style: `${style(place)};stroke-width:2` }));
      key.append(make("li", {}, sample, one.name));
    });
    return make("figure", {}, make("figcaption", {}, unit ? `${title} (${unit})` : title), svg, key);
  };

  const MEMORISATION = [
    ["online_clean_right", "right labels, predicted right"],
    ["online_wrong_true", "wrong labels, true class"],
    ["online_wrong_memorised", "wrong labels, memorised"],
    ["online_wrong_other", "wrong labels, other class"],
  ];

  const charts = (runs, means) => {
    const found = runs.filter((run) => run.curves);
    if (found.length === 0) return make("p", { class: "quiet" }, "There are no epoch metrics.");
    const box = make("div", { class: "charts" });
    const epochs = (run) => pooled(run.curves.epoch);
    const bySeed = (column, scale) =>
      found
        .filter((run) => run.curves[column])
        .map((run) => ({
          name: `seed ${run.seed}`,
          epochs: epochs(run),
          values: run.curves[column].map((value) => (value === null ? null : value / scale)),
        }));
    const accuracy = bySeed("test_accuracy", 10);
    if (accuracy.length) box.append(chart("Test accuracy", accuracy, "%"));

    const kinds = MEMORISATION.filter(([column]) => means?.[column]);
    if (kinds.length) {
      const series = kinds.map(([column, name]) => ({
        name,
        epochs: pooled(means.epoch),
        values: means[column].map((value) => (value === null ? null : value / 10)),
      }));
      box.append(chart("Training images, all seeds", series, "%"));
    }
    const loss = bySeed("loss", 1);
    if (loss.length) box.append(chart("Training loss", loss, ""));
    return box;
  };

  // ---- The facts of some runs -------------------------------------------------------------------
  const shown = (value) => {
    if (value === null || value === undefined || value === "") return "-";
    return typeof value === "object" ? JSON.stringify(value) : String(value);
  };

  // One entry for each name; where the runs differ, it has the value of each seed.
  const facts = (title, runs, read, open = true) => {
    const objects = runs.map(read);
    const names = [...new Set(objects.flatMap((one) => Object.keys(one ?? {})))];
    if (names.length === 0) return [];
    const list = make("dl", { class: "facts" });
    for (const name of names) {
      const texts = objects.map((one) => shown(one?.[name]));
      const same = texts.every((text) => text === texts[0]);
      const text = same ? texts[0] : texts.map((t, i) => `seed ${runs[i].seed}: ${t}`).join("; ");
      list.append(make("div", {}, make("dt", {}, name), make("dd", {}, text)));
    }
    const box = make("details", open ? { open: "" } : {}, make("summary", {}, title), list);
    return [box];
  };

  const percent = (value) => (typeof value === "number" ? (100 * value).toFixed(2) : "-");

  const seedTable = (entries) => {
    const body = make("tbody");
    for (const { seed, key, run, state } of entries) {
      const cells = [
        make("td", { class: "words" }, state),
        make("td", {}, percent(run?.metrics.last)),
        make("td", {}, percent(run?.metrics.best)),
        make("td", {}, shown(run?.seconds.train)),
        make("td", { class: "words" }, make("code", {}, key)),
      ];
      body.append(make("tr", {}, make("th", { scope: "row" }, String(seed)), ...cells));
    }
    const headings = ["seed", "state", "last epoch, %", "best (oracle), %", "seconds", "run"];
    const row = make("tr");
    headings.forEach((text) => {
      const words = text === "state" || text === "run" ? { class: "words" } : {};
      row.append(make("th", { scope: "col", ...words }, text));
    });
    const table = make("table", {}, make("caption", {}, "One run for each seed"));
    table.append(make("thead", {}, row), body);
    const region = { class: "scroll", role: "region", tabindex: "0", "aria-label": "Runs by seed" };
    return make("div", region, table);
  };

  const quoted = (text) =>
    /^[\w.,:+=@%/-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`;

  const commands = (suite, row, entries) => {
    const seeds = entries.map((entry) => entry.seed).join(",");
    const ended = entries.filter((entry) => entry.run).map((entry) => entry.key);
    const box = document.createDocumentFragment();
    const add = (words, command) => {
      box.append(make("p", {}, words), make("pre", { tabindex: "0", role: "group", "aria-label": words }, command));
    };
    const again = `${suite.command} --only ${quoted(row)} --seeds ${seeds} --out again`;
    add("Train these runs anew, in the folder again:", again);
    if (ended.length) {
      const keys = ended.join(" ");
      add("Train them again beside the records, and compare:", `nlbench reproduce results ${keys}`);
      add("Print everything that a record says:", `nlbench show ${ended[0]} --out results`);
    }
    return box;
  };

  const problems = (entries) => {
    const box = make("ul", { class: "notes" });
    for (const { seed, run } of entries) {
      for (const text of [run?.error, ...(run?.warnings === undefined ? [] : pooled(run.warnings))]) {
        if (text) box.append(make("li", {}, `seed ${seed}: ${text}`));
      }
    }
    return box.children.length ? [make("h3", {}, "Errors and warnings"), box] : [];
  };

  const show = (suite, { condition, row, curves: means }, entries) => {
    const runs = entries.filter((entry) => entry.run).map((entry) => entry.run);
    const name = suite.rows[row];
    find("#detail-title").textContent = `${name} on ${suite.conditions[condition]}`;
    const body = find("#detail-body");
    body.replaceChildren(seedTable(entries), ...problems(entries));
    if (runs.length) {
      body.append(
        make("h3", {}, "Curves"),
        charts(runs, means),
        make("h3", {}, "Everything that the runs were made with"),
        ...facts("Parameters of the method", runs, (run) => ({
          method: pooled(run.method),
          ...pooled(run.params),
        })),
        ...facts("Told to the method", runs, (run) => pooled(run.told)),
        ...facts("Facts about the method", runs, (run) => pooled(run.facts), false),
        ...facts("Metrics", runs, (run) => run.metrics, false),
        ...facts("Recall of each class, last epoch", runs, (run) => run.recall ?? {}, false),
        ...facts("Data", runs, (run) => ({ ...pooled(run.data), ...pooled(run.labels) }), false),
        ...facts("Protocol", runs, (run) => pooled(run.protocol), false),
        ...facts("Seconds", runs, (run) => run.seconds, false),
        ...facts("Environment and code", runs, (run) => ({
          ...pooled(run.environment),
          "hash of the code": pooled(run.code),
        }), false),
      );
    }
    body.append(make("h3", {}, "Do it again"), commands(suite, name, entries));
    if (!dialog.open) dialog.showModal();
    dialog.scrollTop = 0;
    find("#detail-title").focus();
  };

  const entriesOf = (cell) =>
    cell.runs.map(([seed, key, state]) => ({ seed, key, state, run: data().runs[key] }));

  // ---- Addresses: #cell-SUITE-CONDITION-ROW and #run-KEY -----------------------------------------
  const open = () => {
    const address = location.hash.slice(1);
    const cell = /^cell-(\d+)-(\d+)-(\d+)$/.exec(address);
    const run = /^run-([0-9a-f]{16})$/.exec(address);
    for (const [s, suite] of cell || run ? data().suites.entries() : []) {
      for (const found of suite.cells) {
        const same = cell && [s, found.condition, found.row].join() === cell.slice(1).join();
        const entries = entriesOf(found).filter((entry) => same || entry.key === run?.[1]);
        if (entries.length && (same || run)) {
          show(suite, found, entries);
          return;
        }
      }
    }
    if (dialog.open) dialog.close();
  };

  let opener = null;
  document.addEventListener("click", (event) => {
    const button = event.target.closest(".sortable thead button");
    if (button) sort(button);
    const link = event.target.closest('a[href^="#cell-"], a[href^="#run-"]');
    if (link && !event.ctrlKey && !event.metaKey && !event.shiftKey) {
      event.preventDefault();
      opener = link;
      history.pushState(null, "", link.getAttribute("href"));
      open();
    }
    if (event.target === dialog) dialog.close();
  });
  find("#close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => {
    if (/^#(cell|run)-/.test(location.hash)) {
      history.replaceState(null, "", location.pathname + location.search);
    }
    opener?.focus();
    opener = null;
  });
  addEventListener("popstate", open);

  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", () => (live.textContent = filter()));
  // The fields are empty again only after the event.
  form.addEventListener("reset", () => setTimeout(() => (live.textContent = filter())));

  document.documentElement.classList.add("js");
  form.hidden = false;
  filter();
  open();
})();
