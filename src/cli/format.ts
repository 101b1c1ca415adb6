import Table from 'cli-table3'
import prettyBytes from 'pretty-bytes'

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

const NO_BORDERS = {
  top: '', 'top-mid': '', 'top-left': '', 'top-right': '', bottom: '', 'bottom-mid': '', 'bottom-left': '', 'bottom-right': '',
  left: '', 'left-mid': '', mid: '', 'mid-mid': '', right: '', 'right-mid': '', middle: '  '
}

/** Columns under their heads, two spaces apart. A head that begins with `>` is a column of numbers, flush right. */
export function table (heads: string[], rows: string[][]): string {
  const aligned = heads.map(head => head.startsWith('>') ? 'right' as const : 'left' as const)
  const grid = new Table({
    head: heads.map(head => head.replace(/^>/, '')),
    colAligns: aligned,
    chars: NO_BORDERS,
    style: { head: [], border: [], 'padding-left': 0, 'padding-right': 0, compact: true }
  })
  grid.push(...rows)
  return grid.toString().split('\n').map(line => line.trimEnd()).join('\n')
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
