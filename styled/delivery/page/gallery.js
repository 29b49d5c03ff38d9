(() => {
  'use strict';

  const BATCH = 60; // cards added at a time
  const AHEAD = 1200; // pixels below the window that are filled with cards
  const LONGEST_LABEL = 120; // characters of a name for screen readers
  const RATIOS = [0.45, 2.4]; // limits of width / height; other pictures are cropped on the wall
  const FIRST_SPLIT = 62; // initial position of the divider, per cent from the left
  const SVG = 'http://www.w3.org/2000/svg';

  const $ = (id) => document.getElementById(id);
  const manifest = JSON.parse($('manifest').textContent);
  const wall = $('wall');
  const kinds = [...document.querySelectorAll('input[name=kind]')];

  // DOM elements

  /** Makes an element; string children are added as text, never parsed as HTML. */
  function make(tag, attributes = {}, ...children) {
    const element = document.createElement(tag);
    setAll(element, attributes);
    element.append(...children.filter((child) => child !== null));
    return element;
  }

  function setAll(element, attributes) {
    for (const [name, value] of Object.entries(attributes)) {
      if (value !== null) element.setAttribute(name, value);
    }
  }

  /** Untrusted text, isolated so that it can't change the direction of the text around it. */
  function isolated(value) {
    return make('bdi', { dir: 'auto' }, value);
  }

  const textOf = (value) => (typeof value === 'string' ? value : '');
  const listOf = (value) => (Array.isArray(value) ? value : []);
  const isNumber = (value) => typeof value === 'number' && Number.isFinite(value);

  function shortened(value, longest = LONGEST_LABEL) {
    const characters = [...value];
    return characters.length > longest ? `${characters.slice(0, longest).join('')}…` : value;
  }

  /** Returns a relative URL that stays on this disk or server, else null. */
  function safeUrl(value) {
    if (typeof value !== 'string' || value === '') return null;
    if (/^[a-z][a-z0-9+.-]*:|^\/|[\\\s\p{Cc}]/iu.test(value)) return null;
    try {
      const url = new URL(value, document.baseURI);
      const { protocol, host } = window.location;
      return url.protocol === protocol && url.host === host ? value : null;
    } catch {
      return null;
    }
  }

  // Formatting

  const DATES = new Intl.DateTimeFormat('en-GB', { dateStyle: 'medium', timeStyle: 'short' });
  const LOSSES = new Intl.NumberFormat('en', {
    minimumSignificantDigits: 2, maximumSignificantDigits: 2,
  });

  function plural(count, one, many = `${one}s`) {
    return `${count} ${count === 1 ? one : many}`;
  }

  function duration(seconds) {
    if (!isNumber(seconds) || seconds < 0) return '';
    if (seconds < 9.95) return `${Number(seconds.toFixed(1))} s`;
    const whole = Math.round(seconds);
    if (whole < 60) return `${whole} s`;
    if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
    const minutes = Math.round(whole / 60);
    return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
  }

  function moment(iso) {
    const date = new Date(textOf(iso));
    return Number.isNaN(date.getTime())
      ? null : make('time', { datetime: date.toISOString() }, DATES.format(date));
  }

  function loss(value) {
    return value < 1e-4 || value >= 1e6 ? value.toExponential(1) : LOSSES.format(value);
  }

  function separated(parts, separator) {
    const present = parts.filter((part) => part !== null && part !== '');
    return present.flatMap((part, index) => (index === 0 ? [part] : [separator, part]));
  }

  // Records

  const records = []; // newest first
  const ids = new Set();
  const names = new Set(); // [style, name] of all records so far, as JSON
  const failedFiles = []; // numbers of record files that can't be loaded
  let nextFile = manifest.record_files - 1;
  let oldestLoaded = Infinity; // finish time of the newest record of the oldest loaded file

  function addRecords(added) {
    let newest = -Infinity;
    for (const record of [...added].reverse()) {
      if (record === null || typeof record !== 'object') continue;
      const finished = Date.parse(record.finished);
      if (finished > newest) newest = finished;
      const id = textOf(record.id);
      if (ids.has(id) || !['result', 'rejected'].includes(record.kind)) continue;
      ids.add(id);
      record.name = textOf(record.name);
      record.style = wellFormed(textOf(record.style));
      const name = JSON.stringify([record.style, record.name]);
      const outdated = record.kind === 'rejected' && names.has(name);
      names.add(name);
      if (outdated) continue;
      records.push(record);
      addStyleOption(record.style);
      if (passes(record)) matches.push(record);
    }
    if (newest > -Infinity) oldestLoaded = newest;
  }

  /** Replaces lone surrogates, as a URL does, so that styles compare equal to those in the hash. */
  function wellFormed(value) {
    return new URLSearchParams([['', value]]).get('');
  }

  // Record files

  const DATA_FILE = /^gallery_files\/(records\/[0-9]{6,}\.js|live\/now\.js\?[0-9]+)$/;
  const onlyDataFiles = {
    createScriptURL(url) {
      if (!DATA_FILE.test(url)) throw new TypeError('not a data file');
      return url;
    },
  };
  const policy = window.trustedTypes
    ? window.trustedTypes.createPolicy('gallery-records', onlyDataFiles) : onlyDataFiles;

  let pendingFile = null; // number and received records of the record file that is being loaded

  Object.defineProperty(window, 'styledGallery', {
    value(number, received) {
      if (pendingFile !== null && pendingFile.number === number && Array.isArray(received)) {
        pendingFile.records = received;
      }
    },
  });

  const urlOfRecords = (number) => `gallery_files/records/${String(number).padStart(6, '0')}.js`;

  /** Runs a data file, which calls one of the functions above; resolves in any case. */
  function runDataFile(url) {
    return new Promise((resolve) => {
      const script = document.createElement('script');
      const done = () => {
        script.remove();
        resolve();
      };
      script.addEventListener('load', done);
      script.addEventListener('error', done);
      script.src = policy.createScriptURL(url);
      document.head.append(script);
    });
  }

  async function loadRecords(number) {
    const loading = { number, records: null };
    pendingFile = loading;
    await runDataFile(urlOfRecords(number));
    pendingFile = null;
    return loading.records;
  }

  let loadingOlder = null;

  /** Loads the next older record file; concurrent calls share the same promise. */
  function loadOlder() {
    loadingOlder ??= loadNext().finally(() => { loadingOlder = null; });
    return loadingOlder;
  }

  async function loadNext() {
    const number = nextFile;
    nextFile -= 1;
    $('more').textContent = 'Looking for older ones …';
    const loaded = await loadRecords(number);
    if (loaded === null) {
      failedFiles.push(number);
      showLoadErrors();
    } else {
      addRecords(loaded);
    }
  }

  function exhausted() {
    return nextFile < 1 || oldestLoaded < bounds.from;
  }

  // Filters

  const filter = { kind: 'result', style: '', from: '', to: '' };
  const bounds = { from: -Infinity, to: Infinity };
  const styles = new Map(); // style -> number of results
  let matches = []; // the records that pass the filter, newest first
  let cardCount = 0; // how many of them have a card on the wall

  function passes(record) {
    if (filter.kind !== 'all' && record.kind !== filter.kind) return false;
    if (filter.style !== '' && record.style !== filter.style) return false;
    if (filter.from === '' && filter.to === '') return true;
    const finished = Date.parse(record.finished);
    return finished >= bounds.from && finished < bounds.to;
  }

  function addStyleOption(style, count = 0) {
    if (style === '' || styles.has(style)) return;
    styles.set(style, count);
    const option = make('option', {}, `\u2068${shortened(style, 60)}\u2069 (${count})`);
    option.value = style;
    $('style').append(option);
  }

  function isDay(value) {
    return /^[0-9]{4}-[0-9]{2}-[0-9]{2}$/.test(value) && !Number.isNaN(Date.parse(value));
  }

  function readHash() {
    const params = new URLSearchParams(window.location.hash.slice(1));
    const kind = params.get('kind');
    filter.kind = ['rejected', 'all'].includes(kind) ? kind : 'result';
    filter.style = params.get('style') ?? '';
    filter.from = isDay(params.get('from') ?? '') ? params.get('from') : '';
    filter.to = isDay(params.get('to') ?? '') ? params.get('to') : '';
    addStyleOption(filter.style);
  }

  function writeHash() {
    const params = new URLSearchParams();
    if (filter.kind !== 'result') params.set('kind', filter.kind);
    for (const key of ['style', 'from', 'to']) {
      if (filter[key] !== '') params.set(key, filter[key]);
    }
    const hash = `#${params}`;
    if (hash !== (window.location.hash || '#')) window.location.replace(hash);
  }

  function readControls() {
    filter.kind = kinds.find((radio) => radio.checked)?.value ?? 'result';
    for (const key of ['style', 'from', 'to']) filter[key] = $(key).value;
  }

  function writeControls() {
    for (const radio of kinds) radio.checked = radio.value === filter.kind;
    for (const key of ['style', 'from', 'to']) $(key).value = filter[key];
  }

  /** Rebuilds the wall for the current filter. */
  function apply() {
    const day = (value, days) => {
      const date = new Date(`${value}T00:00`); // local time, as shown on the cards
      return date.setDate(date.getDate() + days);
    };
    bounds.from = filter.from === '' ? -Infinity : day(filter.from, 0);
    bounds.to = filter.to === '' ? Infinity : day(filter.to, 1);
    matches = records.filter(passes);
    cardCount = 0;
    wall.replaceChildren();
    wall.classList.toggle('compact', filter.kind === 'rejected');
    const narrowed = ['style', 'from', 'to'].filter((key) => filter[key] !== '').length;
    $('reset').hidden = narrowed === 0 && filter.kind === 'result';
    $('more-filters').textContent = narrowed === 0 ? 'Filter' : `Filter (${narrowed})`;
    updateCounts();
    fill();
  }

  function changed() {
    readControls();
    writeHash();
    if ($('filters').getBoundingClientRect().top < 1) wall.scrollIntoView({ block: 'start' });
    apply();
  }

  // Counts and messages

  const NOUNS = {
    result: ['painting'],
    rejected: ['rejected photo'],
    all: ['entry', 'entries'],
  };

  function total(kind) {
    if (nextFile < 1 && failedFiles.length === 0) {
      return records.filter((record) => kind === 'all' || record.kind === kind).length;
    }
    if (kind === 'all') return manifest.results + manifest.rejected;
    return kind === 'result' ? manifest.results : manifest.rejected;
  }

  function updateCounts() {
    for (const kind of Object.keys(NOUNS)) $(`count-${kind}`).textContent = total(kind);
    const noun = plural(total(filter.kind), ...NOUNS[filter.kind]);
    const narrowed = filter.style !== '' || filter.from !== '' || filter.to !== '';
    const dated = filter.from !== '' || filter.to !== '';
    let line = noun;
    if (narrowed && exhausted()) {
      line = `${matches.length} of ${noun}`;
    } else if (narrowed && !dated && filter.kind === 'result') {
      line = `${styles.get(filter.style) ?? 0} of ${noun}`;
    } else if (narrowed) {
      line = `${matches.length} of ${noun} so far`;
    }
    if ($('count').textContent !== line) $('count').textContent = line;
    updateEmptyText();
    if (isFilling) return;
    $('more').textContent = exhausted() && cardCount === matches.length && cardCount > BATCH / 5
      ? 'That is all.' : '';
  }

  function updateEmptyText() {
    const nothing = $('nothing');
    nothing.hidden = matches.length > 0 || !exhausted();
    if (nothing.hidden) return;
    const narrowed = filter.style !== '' || filter.from !== '' || filter.to !== '';
    if (narrowed) {
      nothing.textContent = 'Nothing matches this filter.';
    } else if (filter.kind === 'rejected') {
      nothing.textContent = 'Nothing was rejected.';
    } else {
      nothing.textContent = 'Nothing painted yet: drop a photo into the inbox.';
    }
  }

  function showLoadErrors() {
    const shown = failedFiles.slice(0, 3).map(urlOfRecords).join(', ');
    const files = failedFiles.length > 3 ? `${shown} and ${failedFiles.length - 3} more` : shown;
    $('problem').textContent = failedFiles.length === 1
      ? `A part of the gallery can’t be loaded: ${files}. Its pictures are missing here, but the `
        + 'paintings themselves are still in the outbox.'
      : `${failedFiles.length} parts of the gallery can’t be loaded: ${files}. Their pictures are `
        + 'missing here, but the paintings themselves are still in the outbox.';
    $('problem').hidden = false;
  }

  // Cards

  const recordOf = new WeakMap(); // card -> its record

  function card(record) {
    const item = make('li', { class: `card ${record.kind}` });
    recordOf.set(item, record);
    item.append(make('article', {}, ...(record.kind === 'result'
      ? [mat(picture(record)), resultLabel(record)]
      : [mat(emptyFrame(record)), rejectedLabel(record)])));
    return item;
  }

  const mat = (content) => make('div', { class: 'mat' }, content);

  function picture(record) {
    const name = shortened(record.name);
    const before = safeUrl(record.before);
    const after = safeUrl(record.after);
    const frame = make('div', { class: 'frame' });
    frame.style.setProperty('--ratio', ratioOf(record));
    if (after === null) {
      frame.classList.add('blank');
    } else {
      if (before !== null) frame.append(thumb('before', before, `Photo ${name}`));
      frame.append(thumb('after', after, `Painting of ${name} in style ${shortened(record.style)}`));
    }
    if (after !== null && before !== null) frame.append(...comparison(name, frame));
    if (safeUrl(record.result) !== null) {
      frame.append(make('button', {
        class: 'round expand', type: 'button', 'aria-label': `Show ${name} large`,
      }));
    }
    return frame;
  }

  function ratioOf(record) {
    const ratio = record.width / record.height;
    return isNumber(ratio) && ratio > 0 ? Math.min(Math.max(ratio, RATIOS[0]), RATIOS[1]) : 1;
  }

  function thumb(role, src, alt) {
    const image = make('img', { class: role, loading: 'lazy', decoding: 'async', alt });
    image.draggable = false;
    image.src = src;
    return image;
  }

  function comparison(name, frame) {
    const range = make('input', {
      class: 'compare', type: 'range', min: 0, max: 100, step: 1, dir: 'ltr',
      'aria-label': `Compare photo and painting of ${name}`,
    });
    range.value = FIRST_SPLIT;
    split(range, frame);
    return [range, make('span', { class: 'split', 'aria-hidden': 'true' })];
  }

  function split(range, frame) {
    frame.style.setProperty('--at', `${range.value}%`);
    range.setAttribute('aria-valuetext', `${range.value} % painting`);
  }

  function emptyFrame(record) {
    return make('div', { class: 'frame empty' },
      make('p', { class: 'verdict' }, 'Not painted'),
      make('p', { class: 'reason' }, isolated(textOf(record.reason) || 'No reason is known.')));
  }

  function nameOf(record) {
    const heading = make('h2', { class: 'name' }, isolated(record.name || 'Without a name'));
    if (record.name.length > 60) heading.title = shortened(record.name, 500);
    return heading;
  }

  function resultLabel(record) {
    return make('div', { class: 'label' },
      nameOf(record),
      make('p', { class: 'manner' }, ...separated(manner(record), ', ')),
      make('p', { class: 'facts' }, ...separated(facts(record), ' · ')),
      curve(record),
      notes(listOf(record.degraded).filter((note) => textOf(note) !== '')),
      make('p', { class: 'links' }, ...links(record)));
  }

  function manner(record) {
    const recipe = textOf(record.recipe);
    return [
      record.style === '' ? null : make('em', {}, isolated(record.style)),
      recipe === '' ? null : isolated(recipe),
      ...listOf(record.steering).map(textOf).filter((word) => word !== '').map(isolated),
    ];
  }

  function facts(record) {
    const sized = isNumber(record.width) && isNumber(record.height);
    return [
      sized ? whole(`${record.width} × ${record.height}`) : null,
      whole(duration(record.seconds)),
      moment(record.finished),
    ];
  }

  /** A text in a span, which is not broken over two lines. */
  const whole = (text) => (text === '' ? null : make('span', {}, text));

  function rejectedLabel(record) {
    const file = safeUrl(record.file);
    return make('div', { class: 'label' },
      nameOf(record),
      make('p', { class: 'manner' }, ...separated(manner(record), ', ')),
      make('p', { class: 'facts' }, ...separated([moment(record.finished)], '')),
      file === null ? null
        : make('p', { class: 'links' }, link(file, 'see the file', shortened(record.name))));
  }

  function links(record) {
    const name = shortened(record.name);
    const result = safeUrl(record.result);
    const sidecar = safeUrl(record.sidecar);
    return separated([
      result === null ? null : link(result, 'open painting', name),
      sidecar === null ? null : link(sidecar, 'how it was made', name),
    ], ' ');
  }

  function link(href, text, name) {
    return make('a', { href, target: '_blank', rel: 'noopener noreferrer' },
      text, make('span', { class: 'unseen' }, ': ', isolated(name)));
  }

  function notes(all) {
    if (all.length === 0) return null;
    return make('details', { class: 'notes' },
      make('summary', {}, plural(all.length, 'note')),
      make('ul', {}, ...all.map((note) => make('li', {}, isolated(note)))));
  }

  // The loss curve

  function curve(record) {
    const points = listOf(record.curve).filter((point) => Array.isArray(point)
      && isNumber(point[0]) && isNumber(point[1]) && point[1] > 0);
    if (points.length < 2) return null;
    const first = points[0];
    const last = points[points.length - 1];
    const x = scaleTo(first[0], last[0], 0, 100);
    const heights = points.map((point) => Math.log10(point[1]));
    const y = scaleTo(Math.max(...heights), Math.min(...heights), 2, 30);
    const marks = listOf(record.scales)
      .filter((step) => isNumber(step) && step > first[0] && step < last[0]);
    const svg = svgElement('svg', {
      class: 'curve', viewBox: '0 0 100 32', preserveAspectRatio: 'none', role: 'img',
      'aria-label': `Loss from ${loss(first[1])} to ${loss(last[1])} in ${plural(last[0], 'step')}`,
    });
    svg.append(
      svgElement('path', { class: 'marks', d: marks.map((s) => `M${x(s)} 0V32`).join('') }),
      svgElement('path', { class: 'line', d: lineThrough(points, marks, x, y) }),
    );
    return make('div', { class: 'loss' }, svg,
      make('p', { 'aria-hidden': 'true' }, `loss ${loss(first[1])} → ${loss(last[1])}`));
  }

  /** Returns an SVG path that is interrupted at each mark, where the loss jumps. */
  function lineThrough(points, marks, x, y) {
    let path = '';
    let passed = -1;
    for (const [step, value] of points) {
      const before = marks.filter((mark) => mark <= step).length;
      path += `${before === passed ? 'L' : 'M'}${x(step)} ${y(Math.log10(value))}`;
      if (before !== passed) path += 'h0'; // a dot, even if no other point follows
      passed = before;
    }
    return path;
  }

  function scaleTo(from, to, start, end) {
    const share = (value) => (to === from ? 0.5 : (value - from) / (to - from));
    return (value) => Number((start + share(value) * (end - start)).toFixed(2));
  }

  function svgElement(tag, attributes) {
    const element = document.createElementNS(SVG, tag);
    setAll(element, attributes);
    return element;
  }

  // Filling the wall

  let isFilling = false;

  function addCards() {
    const batch = matches.slice(cardCount, cardCount + BATCH);
    wall.append(...batch.map(card));
    cardCount += batch.length;
  }

  /** Adds cards and loads record files until the window and `AHEAD` pixels below it are filled. */
  async function fill() {
    if (isFilling) return;
    isFilling = true;
    while ($('more').getBoundingClientRect().top < window.innerHeight + AHEAD) {
      if (cardCount < matches.length) addCards();
      else if (!exhausted()) await loadOlder();
      else break;
    }
    isFilling = false;
    updateCounts();
  }

  // The large view

  const large = $('large');
  let shownRecord = null; // the record that is shown large

  const isPaintable = (record) => record.kind === 'result' && safeUrl(record.result) !== null;

  function show(record) {
    shownRecord = record;
    const name = shortened(record.name);
    const full = make('img', {
      class: 'full', decoding: 'async', alt: `Painting of ${name} in style ${shortened(record.style)}`,
    });
    const preview = safeUrl(record.after);
    const stage = $('large-stage');
    stage.replaceChildren(...(preview === null ? [] : [make('img', { alt: '', src: preview })]), full);
    full.addEventListener('load', () => stage.replaceChildren(full));
    full.addEventListener('error', () => stage.append(make('p', { class: 'quiet-note' },
      'The browser can’t show this painting: its file has gone, or is of a kind the browser '
      + 'does not know.')));
    full.src = record.result;
    $('large-name').replaceChildren(isolated(record.name || 'Without a name'));
    const weights = textOf(record.weights) && `${record.weights} weights`;
    const means = [textOf(record.device), weights].filter((part) => part !== '').map(isolated);
    $('large-facts').replaceChildren(
      ...separated([...manner(record), ...facts(record), ...means], ' · '));
    $('large-links').replaceChildren(...links(record));
    $('large-previous').setAttribute('aria-disabled', neighbour(-1) === undefined);
    $('large-next').setAttribute('aria-disabled', neighbour(1) === undefined && exhausted());
    if (!large.open) large.showModal();
  }

  function neighbour(direction) {
    let index = matches.indexOf(shownRecord);
    if (index < 0) return undefined;
    do index += direction; while (matches[index] !== undefined && !isPaintable(matches[index]));
    return matches[index];
  }

  async function step(direction) {
    const origin = shownRecord;
    while (direction > 0 && neighbour(1) === undefined && !exhausted()) await loadOlder();
    updateCounts();
    const next = neighbour(direction);
    if (large.open && shownRecord === origin && next !== undefined) show(next);
  }

  let steps = Promise.resolve();

  /** Queues a step after all earlier ones, which may still be loading. */
  function go(direction) {
    steps = steps.then(() => step(direction));
  }

  function showCardsUpTo(record) {
    const index = matches.indexOf(record);
    while (index >= cardCount && cardCount < matches.length) addCards();
    return wall.children[index]?.querySelector('.expand');
  }

  large.addEventListener('close', () => {
    if (large.open) return; // it was opened again before this event arrived
    $('large-stage').replaceChildren();
    showCardsUpTo(shownRecord)?.focus();
    shownRecord = null;
    fill();
  });
  large.addEventListener('keydown', (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.key === 'ArrowLeft') go(-1);
    else if (event.key === 'ArrowRight') go(1);
    else return;
    event.preventDefault();
  });
  $('large-previous').addEventListener('click', () => go(-1));
  $('large-next').addEventListener('click', () => go(1));
  $('large-close').addEventListener('click', () => large.close());
  $('large-stage').addEventListener('click', (event) => {
    if (event.target === event.currentTarget) large.close();
  });

  // Events of the wall: delegated, because there may be thousands of cards

  wall.addEventListener('input', (event) => {
    if (event.target.matches('.compare')) split(event.target, event.target.closest('.frame'));
  });
  wall.addEventListener('click', (event) => {
    const button = event.target.closest('.expand');
    if (button !== null) show(recordOf.get(button.closest('.card')));
  });
  wall.addEventListener('error', (event) => {
    const frame = event.target.closest('.frame');
    if (frame === null || event.target.tagName !== 'IMG') return;
    const gone = event.target.matches('.after') ? 'img, .compare, .split' : '.before, .compare, .split';
    for (const element of frame.querySelectorAll(gone)) element.remove();
    if (frame.querySelector('img') === null) frame.classList.add('blank');
    frame.style.removeProperty('--at');
  }, true);

  // What is being painted: a file that is there only meanwhile

  const LIVE_SECONDS = 3;
  const IDLE_SECONDS = 20;
  const LOST_SECONDS = 60; // without an update for so long, the daemon is gone

  const liveCards = new Map(); // job id -> its elements
  let liveState = null; // what the file said that is being loaded
  let liveWritten = '';
  let liveSeen = 0; // when it changed last
  let liveTimer = 0;
  let finishedCount = 0; // of jobs that this page has seen, and does not show yet

  Object.defineProperty(window, 'styledLive', {
    value(state) {
      if (state !== null && typeof state === 'object') liveState = state;
    },
  });

  async function pollLive() {
    window.clearTimeout(liveTimer);
    liveTimer = 0;
    liveState = null;
    await runDataFile(`gallery_files/live/now.js?${Date.now()}`);
    const written = textOf(liveState?.written);
    if (written !== liveWritten) {
      liveWritten = written;
      liveSeen = Date.now();
    }
    const isThere = liveState !== null && Date.now() - liveSeen < LOST_SECONDS * 1000;
    showLive(isThere ? liveState : { jobs: [], waiting: 0 });
    window.clearTimeout(liveTimer);
    if (!document.hidden) {
      liveTimer = window.setTimeout(pollLive, 1000 * (isThere ? LIVE_SECONDS : IDLE_SECONDS));
    }
  }

  function showLive(state) {
    const jobs = listOf(state.jobs).filter((job) => job !== null && typeof job === 'object');
    const current = new Set(jobs.map((job) => textOf(job.id)));
    for (const [id, elements] of liveCards) {
      if (current.has(id)) continue;
      elements.card.remove();
      liveCards.delete(id);
      finishedCount += 1;
    }
    for (const job of jobs) showLiveJob(job);
    const { waiting } = state;
    $('live-waiting').textContent = isNumber(waiting) && waiting > 0
      ? `${plural(waiting, 'photo')} waiting` : '';
    $('live-new').hidden = finishedCount === 0;
    $('live-new').textContent = `Show what is new (${finishedCount})`;
    $('live').hidden = jobs.length === 0 && finishedCount === 0;
    $('live-title').textContent = jobs.length === 0 ? 'Finished' : 'Being painted';
  }

  function showLiveJob(job) {
    const id = textOf(job.id);
    if (!liveCards.has(id)) {
      const name = shortened(textOf(job.name));
      const elements = {
        card: make('li', { class: 'live-card' }),
        image: make('img', { alt: `Unfinished painting of ${name}`, decoding: 'async' }),
        frame: make('div', { class: 'frame blank' }),
        bar: make('progress', { max: 1, 'aria-label': `Progress of ${name}` }),
        text: make('p', { class: 'facts' }),
      };
      elements.image.hidden = true;
      elements.frame.append(elements.image);
      elements.image.addEventListener('load', () => {
        elements.image.hidden = false;
        elements.frame.classList.remove('blank');
      });
      elements.card.append(
        elements.frame,
        make('div', { class: 'live-label' },
          make('h3', { class: 'name' }, isolated(textOf(job.name) || 'Without a name')),
          elements.bar, elements.text),
      );
      liveCards.set(id, elements);
      $('live-jobs').append(elements.card);
    }
    const { frame, image, bar, text } = liveCards.get(id);
    const fraction = isNumber(job.fraction) ? Math.min(Math.max(job.fraction, 0), 1) : 0;
    const left = duration(job.seconds_left);
    bar.value = fraction;
    text.replaceChildren(...separated([
      isolated(textOf(job.style)), `${Math.round(100 * fraction)} %`, left && `about ${left} left`,
    ], ' · '));
    frame.style.setProperty('--ratio', ratioOf(job));
    const preview = safeUrl(job.preview);
    if (preview !== null && image.getAttribute('src') !== preview) image.src = preview;
  }

  $('live-new').addEventListener('click', () => window.location.reload());
  document.addEventListener('visibilitychange', () => {
    if (!document.hidden) pollLive();
  });

  // Initialisation

  for (const radio of kinds) radio.addEventListener('change', changed);
  for (const key of ['style', 'from', 'to']) $(key).addEventListener('change', changed);
  $('reset').addEventListener('click', () => {
    Object.assign(filter, { kind: 'result', style: '', from: '', to: '' });
    writeControls();
    changed();
    kinds[0].focus();
  });
  document.querySelector('.skip').addEventListener('click', (event) => {
    event.preventDefault(); // the hash holds the filters
    wall.focus();
  });
  $('more-filters').addEventListener('click', () => {
    const open = $('filters').classList.toggle('open');
    $('more-filters').setAttribute('aria-expanded', open);
  });
  window.addEventListener('hashchange', () => {
    const known = { ...filter };
    readHash();
    if (Object.keys(filter).every((key) => filter[key] === known[key])) return;
    writeControls();
    apply();
  });

  const byCount = Object.entries(manifest.styles ?? {}).sort((a, b) => b[1] - a[1]);
  for (const [style, count] of byCount) addStyleOption(wellFormed(style), count);
  const updated = moment(manifest.updated);
  $('summary').replaceChildren(...(updated === null ? [] : ['Updated ', updated]));
  $('filters').hidden = manifest.results + manifest.rejected === 0;
  addRecords(listOf(manifest.newest));
  readHash();
  writeControls();
  apply();
  new IntersectionObserver(fill, { rootMargin: `${AHEAD}px 0px` }).observe($('more'));
  pollLive();
})();
