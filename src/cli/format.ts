import prettyBytes from 'pretty-bytes'
import stringWidth from 'string-width'

/** 1.5 GiB: binary, as disks of files are counted. */
export function size (bytes: number): string {
  return prettyBytes(bytes, { binary: true })
}

export function rate (bytesPerSecond: number): string {
  return bytesPerSecond <= 0 ? '-' : `${size(Math.round(bytesPerSecond))}/s`
}

export function percent (done: number, total: number): string {
  if (total <= 0) return '100 %'
  // Never 100 before it is.
  return `${Math.floor(100 * Math.min(done, total) / total)} %`
}

/** A probability with as many nines as it has, never 100 %: 99.9 %, 99.99997 %. */
export function likelihood (probability: number): string {
  const loss = 1 - probability
  if (!(loss > 1e-12)) return 'more than 99.9999999999 %'
  // Two figures of what is missing from 1, cut and not rounded: it must not look better than it is.
  const scale = 10 ** Math.max(1, Math.ceil(-Math.log10(loss)) - 1)
  // The double nearest to 0.999 may lie just below it.
  return `${Math.floor(100 * scale * (probability + Number.EPSILON)) / scale} %`
}

/** 45 s, 3 min 20 s, 2 h 5 min, 3 d 4 h. */
export function duration (seconds: number): string {
  if (!Number.isFinite(seconds)) return '-'
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`
  const whole = Math.round(seconds)
  const units: Array<[string, number]> = [['d', 86_400], ['h', 3_600], ['min', 60], ['s', 1]]
  const first = units.findIndex(([, length]) => whole >= length)
  const parts: string[] = []
  let rest = whole
  for (const [name, length] of units.slice(first, first + 2)) {
    const count = Math.floor(rest / length)
    if (count > 0) parts.push(`${count} ${name}`)
    rest -= count * length
  }
  return parts.join(' ')
}

export function ago (milliseconds1970: number, now: number): string {
  const seconds = (now - milliseconds1970) / 1000
  return seconds < 1 ? 'now' : `${duration(seconds).split(' ').slice(0, 2).join(' ')} ago`
}

export function count (number: number, noun: string): string {
  return `${number.toLocaleString('en')} ${noun}${number === 1 ? '' : 's'}`
}

/** Cells wider than this stick out of their column: one name of a megabyte shall not pad a million others. */
const CELL_WIDTH_MAX = 1_000
const PLAIN = /^[\x20-\x7e]*$/

/** Columns under their heads, two spaces apart. A head that begins with `>` is a column of numbers, flush right. */
export function table (heads: string[], rows: readonly string[][]): string {
  return [...tableLines(heads, rows)].join('\n')
}

/** The same, line by line, for tables that may be long. */
export function * tableLines (heads: string[], rows: readonly string[][]): Generator<string> {
  const flushRight = heads.map(head => head.startsWith('>'))
  const names = heads.map(head => head.replace(/^>/, ''))
  const widths = names.map(name => Math.max(1, widthOf(name)))
  for (const row of rows) {
    for (const [column, text] of row.entries()) {
      const width = widthOf(text)
      if (width <= CELL_WIDTH_MAX && width > (widths[column] ?? 0)) widths[column] = width
    }
  }
  const line = (cells: readonly string[]): string => cells.map((text, column) => {
    const space = ' '.repeat(Math.max(0, (widths[column] ?? 0) - widthOf(text)))
    return flushRight[column] === true ? space + text : text + space
  }).join('  ').trimEnd()
  yield line(names)
  for (const row of rows) {
    if (!row.some(text => text.includes('\n'))) {
      yield line(row)
      continue
    }
    const lines = row.map(text => text.split('\n'))
    const height = lines.reduce((most, { length }) => Math.max(most, length), 0)
    for (let at = 0; at < height; at++) yield line(lines.map(cell => cell[at] ?? ''))
  }
}

/** Columns of a terminal that the longest line takes. */
function widthOf (text: string): number {
  if (PLAIN.test(text)) return text.length
  return text.split('\n').reduce((most, line) => Math.max(most, stringWidth(line)), 0)
}

/** Names and their values, the values under one another. */
export function fields (rows: Array<[string, string]>): string {
  const width = Math.max(...rows.map(([name]) => name.length))
  return rows.map(([name, value]) => `${name.padEnd(width)}  ${value}`).join('\n')
}

/** For commands that are printed to be typed. */
export function shellWord (text: string): string {
  return /^[\w./:=@%+,-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`
}

/** What came from elsewhere may hold control characters; a terminal must not obey them. */
export function printable (text: string): string {
  // oxlint-disable-next-line no-control-regex
  return text.replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/g, character => `\\x${character.charCodeAt(0).toString(16).padStart(2, '0')}`)
}
