import { InvalidPathError, PATH_BYTES_MAX, PATH_DEPTH_MAX, PATH_SEGMENT_BYTES_MAX } from '../base/index.ts'
import { printable } from './printable.ts'

/**
 * Paths come from strangers and end up on disks: what passes here is safe below a directory on every file system, and
 * means the same file on all of them.
 */
const SEGMENT = /^[A-Za-z0-9_.+@=-]+$/
const FOREIGN = /[^A-Za-z0-9_.+@=-]/u

/** Throws InvalidPathError unless a model can hold a file of this path. */
export function checkPath (path: string): void {
  if (passes(path)) return
  const bad = (why: string): InvalidPathError => new InvalidPathError(`the path ${printable(path)} ${why}`)
  if (path === '') throw new InvalidPathError('a path is empty; each file of a model needs a name')
  if (path.length > PATH_BYTES_MAX) throw bad(`has ${path.length} characters; at most ${PATH_BYTES_MAX} are allowed, so shorten it`)
  if (path.includes('\0')) throw bad('holds a NUL; rename the file')
  if (path.includes('\\')) throw bad('holds a backslash; use / between directories, and no backslash in names')
  if (path.startsWith('/')) throw bad('is absolute; give it relative to the model directory')
  const segments = path.split('/')
  if (segments.length > PATH_DEPTH_MAX) throw bad(`is ${segments.length} levels deep; at most ${PATH_DEPTH_MAX} are allowed, so flatten the directory`)
  for (const segment of segments) {
    if (segment === '') throw bad('has an empty part; write one / between names and none at the end')
    if (segment === '.' || segment === '..') throw bad(`holds ${segment}; give it relative to the model directory, without . or ..`)
    if (segment.length > PATH_SEGMENT_BYTES_MAX) throw bad(`has a name of ${segment.length} characters; at most ${PATH_SEGMENT_BYTES_MAX} are allowed, so shorten it`)
    if (!SEGMENT.test(segment)) {
      const found = FOREIGN.exec(segment)?.[0] ?? ''
      throw bad(`holds the character ${printable(found)}; names are made of A-Z a-z 0-9 _ . + @ = -, so rename the file`)
    }
  }
}

const SLASH = 0x2f
const DOT = 0x2e
/** 1 for each character of SEGMENT. */
const NAMES = Uint8Array.from({ length: 128 }, (_, code) => SEGMENT.test(String.fromCharCode(code)) ? 1 : 0)

/** Whether no rule of checkPath is broken, in one walk that makes nothing: a manifest has 16 MiB of paths. */
function passes (path: string): boolean {
  if (path === '' || path.length > PATH_BYTES_MAX) return false
  let depth = 0
  for (let start = 0, at = 0; at <= path.length; at++) {
    const code = at === path.length ? SLASH : path.charCodeAt(at)
    if (code !== SLASH) {
      if (NAMES[code] !== 1) return false
      continue
    }
    const length = at - start
    if (length === 0 || length > PATH_SEGMENT_BYTES_MAX || ++depth > PATH_DEPTH_MAX) return false
    if (length <= 2 && path.charCodeAt(start) === DOT && path.charCodeAt(at - 1) === DOT) return false
    start = at + 1
  }
  return true
}

/** Whether checkPath lets it pass. */
export function canHold (path: string): boolean { return passes(path) }

/**
 * Letters of all kinds, but nothing that ends a line, turns the writing around, or is a drive: for names that are shown and compared, and never
 * become a path here. Joiners and non-joiners are spelling: Persian and many emoji have them.
 */
const MISLEADING = /(?![\u200c\u200d])[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}\\]|^[A-Za-z]:/u

/** Throws InvalidPathError unless it is a path below some directory, of whatever letters: one that a model may not hold, and nobody is misled by. */
export function checkForeignPath (path: string): void {
  const bad = (why: string): InvalidPathError => new InvalidPathError(`the path ${printable(path)} ${why}`)
  if (Buffer.byteLength(path) > PATH_BYTES_MAX) throw bad(`has more than ${PATH_BYTES_MAX} bytes`)
  if (MISLEADING.test(path)) throw bad('holds a control character or a backslash, or begins with a drive')
  const segments = path.split('/')
  if (segments.length > PATH_DEPTH_MAX || segments.some(segment => segment === '' || segment === '.' || segment === '..')) throw bad('leads nowhere below a directory')
}

/**
 * checkPath for each, and together: no two that differ only in the case of letters, and none that is a directory of
 * another. Throws InvalidPathError. Order does not matter.
 */
export function checkPaths (paths: readonly string[]): void {
  for (const path of paths) checkPath(path)
  const sorted = paths.map(path => path.toLowerCase()).sort()
  /** Those that the one looked at begins with, the shortest first: what sorts between a file and what lies below it begins with it, too. */
  const beginnings: string[] = []
  for (const path of sorted) {
    while (beginnings.length > 0 && !path.startsWith(beginnings.at(-1) ?? '')) beginnings.pop()
    if (beginnings.at(-1) === path) throw twice(paths.filter(other => other.toLowerCase() === path))
    for (const file of beginnings) {
      if (path.charCodeAt(file.length) === SLASH) throw below(paths.find(other => other.toLowerCase() === file), paths.find(other => other.toLowerCase() === path))
    }
    beginnings.push(path)
  }
}

function twice ([other = '', path = '']: string[]): InvalidPathError {
  return new InvalidPathError(other === path
    ? `the path ${printable(path)} occurs twice; a model holds each path once`
    : `the paths ${printable(other)} and ${printable(path)} differ only in the case of letters, which not every file system tells apart; rename one`)
}

function below (file = '', path = ''): InvalidPathError {
  return new InvalidPathError(`${printable(file)} is a file, and also a directory of ${printable(path)}; rename one`)
}

/**
 * Those that a model cannot hold beside the ones before them, because they differ from one, or from a directory of one, or one of their own
 * directories from one, only in the case of letters. What checkPaths refuses for another reason is none of them.
 */
export function confusable (paths: readonly string[]): Set<string> {
  const files = new Map<string, string>()
  const directories = new Map<string, string>()
  const found = new Set<string>()
  const isLike = (known: ReadonlyMap<string, string>, path: string): boolean => (known.get(path.toLowerCase()) ?? path) !== path
  for (const path of paths) {
    const above: string[] = []
    for (let slash = path.indexOf('/'); slash >= 0; slash = path.indexOf('/', slash + 1)) above.push(path.slice(0, slash))
    if (isLike(files, path) || isLike(directories, path) || above.some(directory => isLike(files, directory))) {
      found.add(path)
      continue
    }
    files.set(path.toLowerCase(), path)
    for (const directory of above) directories.set(directory.toLowerCase(), directory)
  }
  return found
}

/** Where these files have this path, or -1: a manifest is sorted by code unit. */
export function positionOf (files: ReadonlyArray<{ path: string }>, path: string): number {
  let low = 0
  let high = files.length - 1
  while (low <= high) {
    const middle = (low + high) >> 1
    const found = files[middle]?.path ?? ''
    if (found === path) return middle
    if (found < path) low = middle + 1
    else high = middle - 1
  }
  return -1
}
