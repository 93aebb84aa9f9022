"use strict";
// Reads a table and scores it as `bcw predict` does, by the rules, names and numbers in #release. What is not plainly
// one of the common forms is refused, with a word on what to do: `bcw predict` reads many more.

const find = (id) => document.getElementById(id);
const release = JSON.parse(find("release").textContent);
const { model, rules } = release, measurements = release.MEASUREMENTS;
const aliases = new Map(Object.entries(release.ALIASES));
const words = new Map(Object.entries(release.WORDS));
const targetCodes = new Map(Object.entries(release.TARGET_CODES));
const codes = new Set(release.CODES);
const blank = new Set(release.BLANK);
const id = location.pathname.match(`/(${release.inputs}[0-9a-f]{8})/[^/]*$`)?.[1] ?? ""; // the name of the folder
const MOST_BYTES = 2e7, MOST_SHOWN = 200, MOST_REASONS = 3, WARNING = "warning: ";
const REMEDY = "This page reads only the common forms. bcw predict FILE reads many more, and says what is wrong with " +
  "a file.";
const HEAD = 65536, MOST_OF_HEAD = 1000; // characters and rows by which `bcw predict` knows a form

class Refusal extends Error {}
const refuse = (reason) => { throw new Refusal(reason); };

// Numbers and texts as Python writes them.

function roundHalfToEven(digits, count) {
  const kept = BigInt(digits.slice(0, count)), rest = digits.slice(count), half = "5".padEnd(rest.length, "0");
  return kept + (rest > half || (rest === half && kept % 2n) ? 1n : 0n);
}

function formatGeneral(number, digits) { // as format(number, ".6g") does for six digits
  if (!Number.isFinite(number)) return Number.isNaN(number) ? "nan" : number < 0 ? "-inf" : "inf";
  if (number === 0) return Object.is(number, -0) ? "-0" : "0";
  const sign = number < 0 ? "-" : "", [mantissa, power] = Math.abs(number).toExponential(100).split("e");
  const rounded = String(roundHalfToEven(mantissa.replace(".", ""), digits)), text = rounded.replace(/0+$/, "");
  const exponent = Number(power) + rounded.length - digits;
  if (exponent < -4 || exponent >= digits) {
    const size = String(Math.abs(exponent)).padStart(2, "0");
    return `${sign}${text[0]}${text.length > 1 ? "." : ""}${text.slice(1)}e${exponent < 0 ? "-" : "+"}${size}`;
  }
  if (exponent < 0) return `${sign}0.${"0".repeat(-exponent - 1)}${text}`;
  const part = text.slice(exponent + 1);
  return sign + text.slice(0, exponent + 1).padEnd(exponent + 1, "0") + (part && `.${part}`);
}

function formatContribution(number) { // as format(number, "+.2f")
  const sign = number < 0 || Object.is(number, -0) ? "-" : "+", size = Math.abs(number);
  if (size >= 1e21) return `${sign}${BigInt(size)}.00`;
  const digits = size.toFixed(100).replace(".", "");
  const rounded = String(roundHalfToEven(digits, digits.length - 98)).padStart(3, "0");
  return `${sign}${rounded.slice(0, -2)}.${rounded.slice(-2)}`;
}

function quote(text) { // as repr
  const letters = [...text], cut = letters.length > release.LONGEST_QUOTE;
  const mark = text.includes("'") && !text.includes('"') ? '"' : "'";
  const escape = (letter) => {
    const code = letter.codePointAt(0);
    if (letter === "\\" || letter === mark) return `\\${letter}`;
    if (letter === "\t") return "\\t";
    if (letter === " " || !/\p{Z}/u.test(letter)) return letter;
    return code < 256 ? `\\x${code.toString(16).padStart(2, "0")}` : `\\u${code.toString(16).padStart(4, "0")}`;
  };
  return mark + letters.slice(0, release.LONGEST_QUOTE).map(escape).join("") + (cut ? "…" : "") + mark;
}

const isBlank = (text) => blank.has(text.toLowerCase());
const isNumeric = (text) => /^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$/.test(text) && Number.isFinite(Number(text));
const isId = (text) => text !== "" && [...text].length <= release.LONGEST_ID && !/(?! )\p{Z}/u.test(text);
const squeezeName = (text) => text.replace(/[^\p{L}\p{N}]+/gu, "").toLowerCase();
const explainValue = (column, value, allowed) => `${column} is ${quote(value)}; allowed is ${allowed}`;

// The rules: expressions over columns, compiled once.

const compiled = new Map();
function evaluate(expression, row) {
  if (!compiled.has(expression)) compiled.set(expression, compile(expression));
  return compiled.get(expression)(row);
}

function compile(expression) {
  const tokens = expression.match(/\d[\d.]*(?:e-?\d+)?|\w+|\*\*|\S/g);
  let place = 0;
  const chain = (parse, operators) => () => {
    let result = parse();
    while (Object.hasOwn(operators, tokens[place])) {
      const operate = operators[tokens[place++]], left = result, right = parse();
      result = (row) => operate(left(row), right(row));
    }
    return result;
  };
  const parseAtom = () => {
    const token = tokens[place++];
    if (token === "(" || token === "abs") {
      if (token === "abs") place++;
      const inner = parseComparison();
      place++; // the closing bracket
      return token === "abs" ? (row) => Math.abs(inner(row)) : inner;
    }
    const number = token === "pi" ? Math.PI : Number(token);
    return Number.isNaN(number) ? (row) => row[token] : () => number;
  };
  // A square is the only power, and NumPy makes it by multiplication, which Math.pow need not.
  const parsePower = chain(parseAtom, { "**": (x, n) => (n === 2 ? x * x : NaN) });
  const parseProduct = chain(parsePower, { "*": (x, y) => x * y, "/": (x, y) => x / y });
  const parseSum = chain(parseProduct, { "+": (x, y) => x + y, "-": (x, y) => x - y });
  const parseComparison = chain(parseSum, { "<": (x, y) => Number(x < y) });
  return parseComparison();
}

function describe(rule, row) {
  let value = `${rule.subject} is ${formatGeneral(row[rule.subject], 6)}`, allowed = `; allowed is ${rule.bounds}`;
  if (rule.expected) {
    const [expression, basis] = rule.expected;
    value += ` but ${basis} ${formatGeneral(row[basis], 6)}`;
    value += ` makes about ${formatGeneral(evaluate(expression, row), 4)}`;
  }
  if (rule.low === rule.high) {
    const names = new Set(rule.expression.match(/[a-z_]+/g).filter((name) => Object.hasOwn(row, name)));
    value += `, among ${[...names].map((name) => `${name} ${formatGeneral(row[name], 4)}`).join(", ")}`;
    allowed = "";
  } else if (rule.expression !== rule.subject) {
    value += `; ${rule.expression} is ${formatGeneral(evaluate(rule.expression, row), 4)}`;
    allowed = allowed.replace(";", ",");
  }
  return `${value}${allowed} (${rule.code}: ${rule.meaning})`;
}

function findBreaches(row) { // the first rule of each code that is broken
  const breaches = new Map();
  for (const rule of rules) {
    const value = breaches.has(rule.code) ? rule.low : evaluate(rule.expression, row);
    if (!(value >= rule.low && value <= rule.high)) breaches.set(rule.code, rule);
  }
  return [...breaches.values()];
}

// A file becomes lines, lines become fields.

function readText(bytes) {
  if (bytes.length > MOST_BYTES) refuse(`it has more than ${MOST_BYTES / 1e6} million bytes`);
  const head = String.fromCharCode(...bytes.subarray(0, 100));
  if (/^(PK|PAR1|\x1f\x8b|\xd0\xcf\x11\xe0|\xff\xfe|\xfe\xff)/.test(head)) {
    refuse("it is a spreadsheet, Parquet, packed or UTF-16, and this page reads CSV in UTF-8");
  }
  let text;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(bytes).replace(/\r\n?/g, "\n");
  } catch {
    refuse("it is not UTF-8");
  }
  if (/[^\P{C}\t\n]/u.test(text)) refuse("it holds characters that no text has");
  if (/^\s*[<{[@%]/.test(text)) refuse("it does not begin as a table does");
  return text;
}

function splitLine(line, separator) {
  if (!line.includes('"')) return line.split(separator).map((text) => text.trim());
  const field = new RegExp(`"((?:[^"]|"")*)"(?!")|[^"${separator}][^${separator}]*|`, "y"), fields = [];
  for (let place = 0; ; place++) {
    field.lastIndex = place;
    const [whole, quoted] = field.exec(line);
    fields.push((quoted === undefined ? whole : quoted.replaceAll('""', '"')).trim());
    place += whole.length;
    if (place === line.length) return fields;
    if (line[place] !== separator) refuse(whole ? `'${separator}' expected after '"'` : "unexpected end of data");
  }
}

function splitText(text) {
  const lines = text.split("\n"), isFilled = (line) => /[^ \t,;"]/.test(line);
  let start = lines.findIndex(isFilled);
  if (start < 0) refuse("it is empty");
  const mark = lines[start].match(/^"?sep=([,;\t])"?$/); // Excel's line
  if (mark) start = lines.findIndex((line, place) => place > start && isFilled(line));
  if (start < 0) refuse("it is empty");
  const count = (each) => lines[start].replace(/"[^"]*"/g, "").split(each).length - 1;
  if (!mark && count("|") > 4) refuse("its fields are separated by |");
  const separator = mark ? mark[1] : ["\t", ";"].find((each) => count(each) > 4) ?? ",";
  const records = [];
  for (let place = start; place < lines.length; place++) {
    const line = place + 1;
    try {
      const fields = splitLine(lines[place], separator);
      if (fields.some((each) => each)) records.push({ line, fields, problem: "" });
    } catch (error) {
      records.push({ line, fields: null, problem: `it is not CSV: ${error.message}; one line is one row` });
    }
  }
  if (records[0].problem) refuse(records[0].problem);
  const ended = text.slice(0, HEAD).split("\n").length - 1; // lines that `bcw predict` looks at first
  const known = records.filter((record) => record.fields);
  const head = known.filter((record) => record.line <= ended).slice(0, MOST_OF_HEAD);
  const form = recognise(known.map((record) => record.fields), separator);
  const isKnown = head.length > 0
    ? JSON.stringify(form) === JSON.stringify(recognise(head.map((record) => record.fields), separator))
    : known.length === 1 && !mark;
  if (!isKnown) refuse("its first lines are of another form than the rest");
  return { form, records: records.slice(Number(form.hasHeader)) };
}

// Which column is what.

function recognise(lines, separator) {
  const hasPoints = (line) => line.map((text) => (separator === "," ? text : text.replaceAll(",", ".")));
  const hasHeader = !isData(hasPoints(lines[0])), rows = lines.slice(Number(hasHeader)).map(hasPoints);
  const header = lines[0], names = header.map((text) => (hasHeader ? squeezeName(text) : ""));
  const collect = (place) => new Set(rows.filter((row) => place < row.length).map((row) => row[place].toLowerCase()));
  while (names.length && /^(unnamed\d+)?$/.test(names.at(-1)) && [...collect(names.length - 1)].every(isBlank)) {
    names.pop(); // Kaggle's header ends with a comma
  }
  if (rows.length && rows[0].length > header.length) refuse("its rows are longer than its first line");
  if (!hasHeader && !header[0]) refuse("its first field is empty");
  const values = names.map((_, place) => collect(place));
  values.forEach((texts) => texts.delete(""));
  const form = { width: names.length, hasHeader, ...(hasHeader ? readNames : readOrder)(header, names, values, rows) };
  const numbers = lines.slice(Number(hasHeader)).flatMap((line) => form.places.map((place) => line[place] ?? ""));
  const commas = separator !== "," && numbers.some((text) => text.includes(","));
  if (commas && numbers.some((text) => text.includes("."))) refuse("it has numbers with points and with commas");
  return { ...form, hasCommas: commas };
}

function isData(first) { // whether a first line is a patient
  const whole = first.filter((text) => /^[0-9]{1,18}(\.0)?$/.test(text)).map(Number);
  if (whole.length >= 10 && whole.every((number, place) => number === whole[0] + place)) return false;
  const values = first.slice(1).map((text) => text.toLowerCase().replaceAll(",", "."));
  const filled = values.filter((text) => !blank.has(text) && text !== "?"), numbers = filled.filter(isNumeric).length;
  const isPatient = numbers > 0 && filled.every((text) => isNumeric(text) || words.has(text));
  return isPatient || numbers >= Math.max(10, first.length / 2);
}

const isWithin = (texts, known) => texts.size > 0 && [...texts].every((text) => known.has(text));
const hasFew = (texts, rows) => rows.length >= 10 && texts.size <= 3;

function readNames(header, names, values, rows) {
  const all = names.map((_, place) => place), known = names.map((name) => aliases.get(name));
  const stands = measurements.map((name) => all.filter((place) => known[place] === name));
  const missing = measurements.filter((_, number) => stands[number].length === 0);
  if (missing.length === measurements.length) refuse("its first line names no measurements that this page knows");
  if (missing.length) refuse(`it lacks ${missing.length} of the ${measurements.length} measurements: ${missing.join(", ")}`);
  if (stands.some((places) => places.length > 1)) refuse("it has a measurement twice");
  const places = stands.flat(), passed = new Set(places);
  if (!passed.has(0) && release.INDEX_NAMES.includes(names[0])) {
    const first = Number(rows[0]?.[0]);
    const isIndex = rows.every(([text], number) => /^\d{1,15}$/.test(text) && Number(text) === first + number);
    if (!isIndex || first > 1) refuse(`its column ${quote(header[0])} may be of ids; call it id, or leave it out`);
    passed.add(0);
  }
  const isFilled = (place) => [...values[place]].some((text) => !blank.has(text));
  const others = all.filter((place) => !passed.has(place) && (names[place] || isFilled(place)));
  const named = others.filter((place) => release.LABEL_NAMES.includes(names[place]));
  if (named.length > 1) refuse("it has several columns that may be of diagnoses");
  const label = named.length ? readLabel(named[0], header, names, values) : null;
  const unnamed = others.find((place) => place !== named[0] && isWithin(values[place], words));
  if (unnamed !== undefined) refuse(`its column ${quote(header[unnamed])} may be of diagnoses; call it diagnosis`);
  const coded = label ? undefined : [...named, ...others].find((place) => isWithin(values[place], codes));
  const rest = others.filter((place) => place !== label?.place && place !== coded);
  const idPlace = findId(names, values, rows, rest, header);
  const isUsed = (place) => place === idPlace || names[place] === squeezeName(release.PROBABILITY);
  const leftOut = rest.filter((place) => !isUsed(place)).map((place) => header[place]);
  if (leftOut.includes("")) refuse("it has a column without a name");
  if (coded !== undefined && release.ID_NAMES.includes(names[coded])) refuse("its ids may be diagnoses");
  return {
    places, label, id: idPlace, leftOut: listNames(leftOut),
    codes: coded === undefined ? "" : explainCodes(header[coded], values[coded]),
  };
}

function readLabel(place, header, names, values) {
  const name = names[place], texts = values[place], has = (known) => [...texts].some((text) => known.has(text));
  const isScikitLearn = name === release.TARGET && release.SCIKIT_LEARN.every((each) => names.includes(each));
  const isTarget = isScikitLearn && has(targetCodes);
  if (isTarget || texts.size === 0 || isWithin(texts, words) || (name === release.DIAGNOSIS && has(words))) {
    return { place, name: header[place], isTarget };
  }
  if (!isWithin(texts, codes)) refuse(`its column ${quote(header[place])} holds no diagnoses; call it something else`);
  return null;
}

function findId(names, values, rows, places, header) {
  for (const name of release.ID_NAMES) {
    const place = places.find((each) => names[each] === name);
    if (place === undefined) continue;
    if (values[place].size === rows.length || (name === release.ID && !hasFew(values[place], rows))) return place;
    refuse(`its column ${quote(header[place])} does not tell the rows apart; call it something else`);
  }
  return null;
}

function readOrder(header, names, values, rows) { // UCI's: perhaps an id, perhaps the diagnosis, 30 measurements
  const labels = values.map((texts) => isWithin(texts, words));
  if (labels.length > 1) labels[1] ||= ![...values[1]].some(isNumeric);
  const layout = labels.map((isLabel) => (isLabel ? "L" : "#")).join("");
  const fits = layout.match(`^(#?)(L?)#{${measurements.length}}(L?)$`);
  if (!fits) refuse(`it has ${names.length} columns without the names of the ${measurements.length} measurements, and not in UCI's order`);
  if (fits[2] && fits[3]) refuse("it has several columns that may be of diagnoses");
  const hasId = fits[1] !== "";
  const isNumber = (text) => codes.has(text) || text.includes(".");
  const isCoded = isWithin(values[1], codes) || isWithin(values.at(-1), codes) || [...values[0]].some(isNumber);
  const isDoubtful = hasId && ((!layout.includes("L") && isCoded) || hasFew(values[0], rows));
  if (isDoubtful) refuse("its first column does not tell the rows apart");
  const numbers = [...layout].flatMap((kind, place) => (kind === "#" ? [place] : [])), place = layout.indexOf("L");
  return {
    places: numbers.slice(-measurements.length), id: hasId ? 0 : null, codes: "", leftOut: "",
    label: place < 0 ? null : { place, name: release.DIAGNOSIS, isTarget: false },
  };
}

function listNames(names) {
  const quoted = names.slice(0, release.MOST_NAMES).map(quote), hidden = names.length - quoted.length;
  return [...quoted, ...(hidden ? [`and ${hidden.toLocaleString("en")} more`] : [])].join(", ");
}

function explainCodes(title, texts) {
  return `the column ${quote(title)} holds ${[...texts].sort().slice(0, 3).join(" and ")}, which stand for either ` +
    "diagnosis, one way in some tables and the other in others; write M for malignant and B for benign";
}

// Rows become measurements, measurements a probability.

const readNumber = (text, hasCommas) => (hasCommas ? text.replaceAll(".", "_").replaceAll(",", ".") : text);

function parse(fields, { hasCommas }) { // 30 fields → values by name; refuses the first that is no number
  const isWrong = ({ text }) => !isNumeric(readNumber(text, hasCommas));
  const [wrong] = fields.filter(isWrong).sort((left, right) => left.place - right.place);
  if (wrong) refuse(explainValue(wrong.name, wrong.text, hasCommas ? release.COMMA_NUMBER_IS : release.NUMBER_IS));
  return Object.fromEntries(fields.map(({ name, text }) => [name, Number(readNumber(text, hasCommas)) + 0]));
}

function explainCount({ width }, texts) {
  if (texts.length < width) return `it has ${texts.length} fields; allowed are ${width}`;
  const more = texts.slice(width).find((text) => !isBlank(text));
  return more ? `it has ${quote(more)} after its ${width} fields; allowed is nothing there` : "";
}

function readRecord(form, { line, fields, problem }, number) {
  const texts = fields ?? [], row = { id: "", diagnosis: "", values: null, problems: [], warnings: [] };
  let fault = problem || explainCount(form, texts);
  const isRow = !fault;
  if (isRow) {
    try {
      const named = form.places.map((place, order) => ({ name: measurements[order], place, text: texts[place] }));
      row.values = parse(named, form);
    } catch (error) {
      fault = error.message;
    }
    const text = form.id === null ? "" : texts[form.id];
    if (form.id === null || isId(text)) row.id = text;
    else fault ||= explainValue(release.ID, text, release.PRINTABLE);
  }
  const name = `Line ${line}${row.id ? `, id ${row.id}` : ""}`;
  const text = isRow && form.label ? texts[form.label.place] : "";
  if (fault) row.problems.push(`${name}: ${fault}`);
  row.diagnosis = (form.label?.isTarget ? targetCodes : words).get(text.toLowerCase()) ?? "";
  if (text && !row.diagnosis) {
    const allowed = form.label.isTarget ? release.TARGET_IS : release.LABEL_IS;
    row.warnings.push(`${name}: ${explainValue(form.label.name, text, allowed)}`);
  }
  if (form.id === null) row.id = `row-${String(number + 1).padStart(4, "0")}`;
  return row;
}

function score(row) {
  const breaches = row.problems.length ? [] : findBreaches(row.values);
  const hard = breaches.filter((rule) => rule.is_hard), advice = breaches.filter((rule) => !rule.is_hard);
  row.codes = row.problems.length ? ["unreadable"] : hard.map((rule) => rule.code);
  row.subjects = hard.map((rule) => rule.subject);
  row.remarks = [
    ...row.problems, ...hard.map((rule) => describe(rule, row.values)),
    ...row.warnings.map((text) => WARNING + text), ...advice.map((rule) => WARNING + describe(rule, row.values)),
  ];
  if (row.codes.length) return { ...row, probability: null, reasons: [] };
  const standard = model.features.map((name, place) => (row.values[name] - model.mean[place]) / model.scale[place]);
  const contributions = standard.map((number, place) => model.coefficients[place] * number);
  const logOdds = contributions.reduce((sum, number) => sum + number, model.intercept);
  const small = Math.exp(-Math.abs(logOdds)), probability = (logOdds >= 0 ? 1 : small) / (1 + small);
  const reasons = contributions.map((number, place) => ({ name: model.features[place], number }));
  reasons.sort((left, right) => Math.abs(right.number) - Math.abs(left.number));
  return { ...row, probability, reasons: reasons.slice(0, MOST_REASONS) };
}

// What people see.

const threshold = () => Number(document.querySelector("input[name=threshold]:checked").value);
const formatPercent = (number) => {
  if (number > 0.9995) return "above 99.9 %";
  return number < 0.0005 ? "below 0.1 %" : `${(100 * number).toFixed(1)} %`;
};
const formatCount = (count) => `${count.toLocaleString("en")} row${count === 1 ? "" : "s"}`;
const describeReason = ({ name, number }) => `${name} ${formatContribution(number)}`;
const call = (probability) => (probability >= threshold() ? "malignant" : "benign");

function make(tag, text, attributes = {}) {
  const element = Object.assign(document.createElement(tag), attributes);
  element.append(text);
  return element;
}

let single = null, table = null; // the patient of the fields, and the rows of a file with their form

function scoreFields() {
  const inputs = measurements.map((name, place) => ({ name, place, text: find(name).value.trim() }));
  const has = (mark) => inputs.some(({ text }) => text.includes(mark)), hasCommas = has(",") && !has(".");
  const row = { problems: [], warnings: [], values: null };
  try {
    row.values = parse(inputs, { hasCommas });
  } catch (error) {
    row.problems.push(error.message);
  }
  single = score(row);
  for (const { name, text } of inputs) {
    const isWrong = !isNumeric(readNumber(text, hasCommas)) || single.subjects.includes(name);
    find(name).setAttribute("aria-invalid", String(isWrong));
  }
  showSingle();
}

function showSingle() {
  const { probability, reasons, remarks } = single, isScored = probability !== null;
  find("result").dataset.call = isScored ? call(probability) : "none";
  find("probability").textContent = isScored ? formatPercent(probability) : "No answer";
  find("verdict").textContent = isScored
    ? `Called ${call(probability)}; the threshold is ${threshold()}.`
    : "These measurements are not scored, because";
  find("share").setAttribute("width", isScored ? 100 * probability : 0);
  find("why").hidden = !isScored;
  find("reasons").replaceChildren(...reasons.map((reason) => {
    const item = make("li", make("code", reason.name)), side = reason.number < 0 ? "benign" : "malignant";
    item.append(` speaks for ${side} (${formatContribution(reason.number)})`);
    return item;
  }));
  find("remarks").replaceChildren(...remarks.map((text) => make("li", text)));
}

async function readFile(file) {
  find("summary").textContent = `Reading ${file.name} …`;
  await new Promise((resume) => { setTimeout(resume, 20); }); // until that is seen
  const bytes = new Uint8Array(await file.arrayBuffer());
  table = null;
  try {
    const { form, records } = splitText(readText(bytes));
    if (records.length === 0) refuse("it has no rows");
    table = { name: file.name, form, rows: records.map((record, number) => score(readRecord(form, record, number))) };
    showTable();
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    const reason = `${file.name} is not scored here: ${error.message}.`;
    find("summary").replaceChildren(make("p", reason), make("p", REMEDY));
  }
  find("rows").hidden = table === null;
}

function showTable() {
  find("summary").replaceChildren(...summarise(table).map((text) => make("p", text)));
  find("table").replaceChildren(...table.rows.slice(0, MOST_SHOWN).map((row) => {
    const line = make("tr", make("th", row.id || "without an id", { scope: "row" })), { probability } = row;
    const verdict = probability === null ? ["", "not scored"] : [formatPercent(probability), call(probability)];
    const texts = [...verdict, row.reasons.map(describeReason).join(", "), row.remarks.join("; ")];
    line.append(...texts.map((text) => make("td", text)));
    return line;
  }));
  const all = `The first ${MOST_SHOWN} of ${formatCount(table.rows.length)}; the download has all of them.`;
  find("shown").textContent = table.rows.length > MOST_SHOWN ? all : "";
}

function summarise({ name, form, rows }) {
  const scored = rows.filter((row) => row.probability !== null), known = scored.filter((row) => row.diagnosis);
  const isMalignant = (row) => row.probability >= threshold();
  const agrees = (row) => (row.diagnosis === "M") === isMalignant(row);
  const malignant = scored.filter(isMalignant).length.toLocaleString("en"), lines = [];
  lines.push(`${name}: ${formatCount(scored.length)} scored, ${malignant} of them malignant from ${threshold()} on.`);
  if (scored.length < rows.length) {
    const counts = new Map();
    rows.forEach((row) => row.codes.forEach((code) => counts.set(code, (counts.get(code) ?? 0) + 1)));
    const reasons = [...counts].sort((left, right) => right[1] - left[1]).map(([code, count]) => `${code} in ${count}`);
    lines.push(`${formatCount(rows.length - scored.length)} not scored: ${reasons.join(", ")}.`);
  }
  if (form.codes) lines.push(`The input has no diagnoses that say who was malignant: ${form.codes}.`);
  if (form.leftOut) lines.push(`Left out, because the model has no use for it: ${form.leftOut}.`);
  const isMostlyOther = (diagnosis) => {
    const same = known.filter((row) => row.diagnosis === diagnosis);
    return same.filter(agrees).length < same.length / 2;
  };
  if (isMostlyOther("M") && isMostlyOther("B")) {
    lines.push("The diagnoses of the input look inverted: most of them are the other than the model's.");
  }
  if (known.length) {
    const agreement = `${known.filter(agrees).length.toLocaleString("en")} of ${formatCount(known.length)}`;
    lines.push(`The model calls ${agreement} as they were diagnosed. ` +
      "That is no evaluation if it was trained on them; bcw predict counts those.");
  }
  return lines;
}

const quoteField = (text) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);

function formatTable() { // what `bcw predict --explain` writes
  const lines = table.rows.map((row) => {
    const { probability } = row, reasons = row.reasons.map(describeReason);
    const numbers = probability === null ? ["", ""] : [String(probability), String(Number(probability >= threshold()))];
    const texts = [row.id, ...numbers, id || release.inputs, row.remarks.join("; "), ...reasons];
    return [...texts, ...Array(MOST_REASONS - reasons.length).fill("")].map(quoteField).join(",");
  });
  const ranks = Array.from({ length: MOST_REASONS }, (_, rank) => `contribution_${rank + 1}`);
  const header = [release.ID, release.PROBABILITY, "malignant", "release", "problems", ...ranks];
  return `${[header.join(","), ...lines].join("\n")}\n`;
}

function fill(patient) {
  measurements.forEach((name) => { find(name).value = patient[name]; });
  scoreFields();
}

if (id) document.querySelectorAll(".id").forEach((element) => { element.textContent = id; });
find("patients").addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (button) fill(release.patients[Number(button.value)]);
});
find("fields").addEventListener("input", scoreFields);
find("thresholds").addEventListener("change", () => {
  showSingle();
  if (table) showTable();
});
const readFirst = ({ files }) => files.length && readFile(files[0]);
find("file").addEventListener("change", () => readFirst(find("file")));
find("drop").addEventListener("dragover", (event) => event.preventDefault());
find("drop").addEventListener("drop", (event) => {
  event.preventDefault();
  readFirst(event.dataTransfer);
});
find("download").addEventListener("click", () => {
  const link = Object.assign(document.createElement("a"), { download: "scores.csv" });
  link.href = URL.createObjectURL(new Blob([formatTable()], { type: "text/csv" }));
  link.click();
  URL.revokeObjectURL(link.href);
});
fill(release.patients[1]);
