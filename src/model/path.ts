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

/** Whether checkPath lets it pass. */
export function canHold (path: string): boolean {
  try {
    checkPath(path)
    return true
  } catch {
    return false
  }
}

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
  const files = new Map<string, string>()
  for (const path of paths) {
    checkPath(path)
    const folded = path.toLowerCase()
    const other = files.get(folded)
    if (other !== undefined) {
      throw new InvalidPathError(other === path
        ? `the path ${printable(path)} occurs twice; a model holds each path once`
        : `the paths ${printable(other)} and ${printable(path)} differ only in the case of letters, which not every file system tells apart; rename one`)
    }
    files.set(folded, path)
  }
  for (const path of paths) {
    const folded = path.toLowerCase()
    for (let slash = folded.indexOf('/'); slash >= 0; slash = folded.indexOf('/', slash + 1)) {
      const file = files.get(folded.slice(0, slash))
      if (file !== undefined) {
        throw new InvalidPathError(`${printable(file)} is a file, and also a directory of ${printable(path)}; rename one`)
      }
    }
  }
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
