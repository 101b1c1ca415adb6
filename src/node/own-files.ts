import { lstat, readdir, stat } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { UsageError } from '../base/index.ts'

/** What stands in a data directory that anyone may read and open: models, as they were added or loaded. */
const OPEN = new Set(['files', 'models'])
/** And what clients write beside the socket for this node to take (python/src/shoal/_spool.py). */
const SPOOLED = /^shoal-save-[0-9a-f]{16}$/

interface Inode { dev: number | bigint, ino: number | bigint }

/**
 * What a node has in its data directory, among what is to be added. In place nothing of it: that a user's file stays is what in place means,
 * and the node removes there what it does not need. Else all but the files it lives by, its keys, which must not be published, and its locks, which the system
 * drops when any descriptor of such a file is closed (storage/process-lock.ts). Told by device and inode, whatever path leads there.
 */
export class OwnFiles {
  readonly #directory: Inode
  readonly #inPlace: boolean
  /** The directories that stand in the data directory, one of which may lead to another volume. */
  readonly #directories: ReadonlySet<string>
  /** Those that stand in the data directory itself. */
  readonly #files: ReadonlySet<string>
  /** Directories that were looked at, by real path: whether they are open. */
  readonly #known = new Map<string, boolean>()

  private constructor (directory: Inode, { files, directories, inPlace }: { files: ReadonlySet<string>, directories: ReadonlySet<string>, inPlace: boolean }) {
    this.#directory = directory
    this.#files = files
    this.#directories = directories
    this.#inPlace = inPlace
  }

  /** Opens none of them. Throws the system's error. */
  static async of (directory: string, { inPlace }: { inPlace: boolean }): Promise<OwnFiles> {
    const files = new Set<string>()
    const directories = new Set<string>()
    for (const entry of await readdir(directory, { withFileTypes: true })) {
      const path = join(directory, entry.name)
      const target = entry.isFile() ? undefined : await stat(path).catch(() => undefined)
      if (target?.isDirectory() === true) directories.add(nameOf(target))
      if (entry.isDirectory()) continue
      const info = await lstat(path).catch(() => undefined) // a temporary one that is gone by now
      if (info !== undefined) files.add(nameOf(info))
    }
    return new OwnFiles(await stat(directory), { files, directories, inPlace })
  }

  /** Of what was found on the way down. Throws UsageError. */
  check (path: string, info: Inode): void {
    if (this.#inPlace && this.#directories.has(nameOf(info))) throw notInPlace(path)
    if (isSame(info, this.#directory) || this.#files.has(nameOf(info))) throw refusal(path)
  }

  /** Of where the way down begins, or goes on after a link: looks at all that is above it, too. Throws UsageError, and the system's error. */
  async checkPlace (real: string, info: Inode): Promise<void> {
    this.check(real, info)
    if (!await this.#isOpen(real)) throw this.#inPlace ? notInPlace(real) : refusal(real)
  }

  async #isOpen (real: string): Promise<boolean> {
    const above = dirname(real)
    if (above === real) return true
    const known = this.#known.get(above)
    if (known !== undefined) return known
    const info = await stat(above)
    if (this.#inPlace && this.#directories.has(nameOf(info))) return false
    if (isSame(info, this.#directory)) return !this.#inPlace && isOpenName(basename(real))
    const open = await this.#isOpen(above)
    this.#known.set(above, open)
    return open
  }
}

function isOpenName (name: string): boolean {
  return OPEN.has(name) || SPOOLED.test(name)
}

function notInPlace (path: string): UsageError {
  return new UsageError(`${path} is in the data directory of this node, which may remove it; add it without --in-place, or move it elsewhere first`)
}

function isSame (one: Inode, other: Inode): boolean {
  return one.ino === other.ino && one.dev === other.dev
}

function nameOf ({ dev, ino }: Inode): string {
  return `${dev}:${ino}`
}

function refusal (path: string): UsageError {
  return new UsageError(`${path} belongs to this node itself: its data directory holds its keys and locks, which are no part of a model; add what is beside it, or use a --data directory elsewhere`)
}
