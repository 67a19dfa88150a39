// Returns in words what keeps a page from being read: at the width it is shown
// at, in the colours it has, by a screen reader, with the keyboard. With focusOnly it looks
// at what has the focus, and at nothing else.
(width, focusOnly) => {
  const problems = [];
  const say = (element, what) => {
    const text = (element.textContent || "").trim().replace(/\s+/g, " ").slice(0, 40);
    problems.push(`<${element.localName}${element.id && " id=" + element.id}> "${text}": ${what}`);
  };
  const visible = element => element.checkVisibility({ visibilityProperty: true, opacityProperty: true });

  // Colours, as in WCAG 2: relative luminance, and the ratio of two.
  const parse = text => {
    const numbers = text.match(/^rgba?\(([^)]*)\)$/)?.[1].split(/[\s,/]+/).map(Number);
    return numbers && { rgb: numbers.slice(0, 3), alpha: numbers[3] ?? 1 };
  };
  const colour = (element, property) => {
    const parsed = parse(getComputedStyle(element)[property]);
    if (!parsed) say(element, `${property} ${getComputedStyle(element)[property]} can't be reckoned with`);
    return parsed ?? { rgb: [0, 0, 0], alpha: 1 };
  };
  const over = (top, under) => top.rgb.map((c, i) => c * top.alpha + under[i] * (1 - top.alpha));
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  // What is behind an element's text: the backgrounds up to the first that
  // lets nothing through, or to the browser's own.
  const background = element => {
    if (!element) {
      const scheme = getComputedStyle(document.documentElement).colorScheme;
      return dark && scheme.includes("dark") ? [18, 18, 18] : [255, 255, 255];
    }
    const style = getComputedStyle(element);
    if (style.backgroundImage !== "none") say(element, "a picture is behind the text");
    if (style.opacity !== "1") say(element, "it is translucent");
    const own = colour(element, "backgroundColor");
    return own.alpha === 1 ? own.rgb : over(own, background(element.parentElement));
  };
  const luminance = rgb => {
    const [r, g, b] = rgb.map(c => c / 255).map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ratio = (top, under) => {
    const [a, b] = [luminance(over(top, under)), luminance(under)];
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  };
  // SC 1.4.3: 4.5 to 1, for large text 3 to 1.
  const readable = element => {
    const style = getComputedStyle(element);
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || size >= 18.66 && style.fontWeight >= 700;
    const got = ratio(colour(element, "color"), background(element));
    if (got < (large ? 3 : 4.5)) say(element, `its text has a contrast of ${got.toFixed(2)} to 1`);
  };

  const page = () => {
    // Layout, SC 1.4.10.
    const root = document.documentElement;
    if (innerWidth > width) say(root, `it is laid out for ${innerWidth} px instead of ${width}`);
    if (root.scrollWidth > width) say(root, `it scrolls sideways: ${root.scrollWidth} px of ${width}`);
    const scrolled = element => {
      for (let e = element; e; e = e.parentElement) {
        if (e.tabIndex >= 0 && /auto|scroll/.test(getComputedStyle(e).overflowX)) return true;
      }
      return false;
    };
    for (const element of document.body.querySelectorAll("*")) {
      const style = getComputedStyle(element);
      if (!visible(element) || element.localName === "input") continue;
      const cut = (style.overflowX !== "visible" && element.scrollWidth > element.clientWidth + 1) ||
        (style.overflowY !== "visible" && element.scrollHeight > element.clientHeight + 1);
      if (cut && !scrolled(element)) say(element, "its content is cut off, or scrolls for the mouse only");
    }

    // Every piece of text.
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    let letters = 0;
    while (texts.nextNode()) {
      const element = texts.currentNode.parentElement;
      if (!texts.currentNode.data.trim() || !visible(element)) continue;
      letters += texts.currentNode.data.trim().length;
      readable(element);
      const range = document.createRange();
      range.selectNodeContents(texts.currentNode);
      for (const box of range.getClientRects()) {
        if ((box.left < 0 || box.right > width + 0.5) && !scrolled(element)) {
          say(element, `its text reaches from ${box.left} to ${box.right} px`);
          break;
        }
      }
      if (parseFloat(getComputedStyle(element).fontSize) < 14) say(element, "its text is tiny");
      // Names from outside may break anywhere, and words of ours nowhere.
      if (element.closest("bdi") || !element.closest("button, a.b, th, td, dt, label, nav")) continue;
      for (const word of texts.currentNode.data.matchAll(/[\p{L}\p{N}]+/gu)) {
        if (word[0].length > 24) continue;
        range.setStart(texts.currentNode, word.index);
        range.setEnd(texts.currentNode, word.index + word[0].length);
        if (new Set([...range.getClientRects()].map(box => box.top)).size > 1) say(element, `its word ${word[0]} is broken`);
      }
    }
    if (letters === 0) say(root, "it shows no text");

    // The document.
    if (!root.lang) say(root, "it has no language");
    if (!document.title.trim()) say(root, "it has no title");
    for (const [selector, count] of [["h1", 1], ["main", 1]]) {
      const found = [...document.querySelectorAll(selector)].filter(visible).length;
      if (found !== count) say(root, `it has ${found} ${selector}`);
    }
    let level = 0;
    for (const heading of document.querySelectorAll("h1, h2, h3, h4, h5, h6")) {
      const next = Number(heading.localName[1]);
      if (next > level + 1) say(heading, `a level is left out before it`);
      level = next;
    }
    const seen = new Set();
    for (const element of document.querySelectorAll("[id]")) {
      if (seen.has(element.id)) say(element, "its id stands twice");
      seen.add(element.id);
    }
    for (const element of document.querySelectorAll("script, iframe, img, link, object, embed, [style], [autofocus]")) {
      say(element, "it does not belong here");
    }
    for (const link of document.querySelectorAll("a")) {
      if (!getComputedStyle(link).textDecorationLine.includes("underline")) say(link, "only its colour tells that it is a link");
    }

    // Forms. A box to tick is the browser's own and has the browser's border.
    for (const control of document.querySelectorAll("input:not([type=hidden]), select, textarea, button")) {
      const named = control.localName === "button" ? control.textContent.trim() : control.labels.length > 0;
      if (!named) say(control, "it has no label");
      const box = control.getBoundingClientRect();
      if (box.width < 24 || box.height < 24) say(control, `it is ${box.width} by ${box.height} px small`);
      if (control.localName === "input" && control.type !== "checkbox") readable(control);
      if (control.type !== "checkbox") {
        const around = background(control.parentElement);
        const edges = [ratio({ rgb: background(control), alpha: 1 }, around)];
        const style = getComputedStyle(control);
        if (style.borderBottomStyle !== "none" && style.borderBottomWidth !== "0px") edges.push(ratio(colour(control, "borderBottomColor"), around));
        if (Math.max(...edges) < 3) say(control, `its edge has a contrast of ${Math.max(...edges).toFixed(2)} to 1`);
      }
      if (control.getAttribute("aria-invalid") === "true") {
        const by = document.getElementById(control.getAttribute("aria-describedby"));
        if (by?.getAttribute("role") !== "alert" || !by.textContent.trim()) say(control, "nothing says what is wrong with it");
      }
    }
    for (const alert of document.querySelectorAll("[role=alert]")) {
      if (!document.querySelector(`[aria-describedby="${alert.id}"]`)) say(alert, "it belongs to nothing");
    }
  };
  if (!focusOnly) page();

  // What has the focus just now, where it came by the keyboard.
  const focus = document.activeElement;
  if (focus && focus.matches(":focus-visible")) {
    const style = getComputedStyle(focus);
    const got = ratio(colour(focus, "outlineColor"), background(focus.parentElement));
    if (style.outlineStyle === "none" || parseFloat(style.outlineWidth) < 2 || got < 3) {
      say(focus, `the focus hardly shows: ${style.outlineStyle} ${style.outlineWidth}, ${got.toFixed(2)} to 1`);
    }
  }
  return problems;
}
