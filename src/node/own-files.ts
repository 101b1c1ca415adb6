import { lstat, readdir, stat } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { UsageError } from '../base/index.ts'

/** What stands in a data directory that anyone may read and open: models, as they were added or loaded. */
const OPEN = new Set(['files', 'models'])
/** And what clients write beside the socket for this node to take (python/src/shoal/_spool.py). */
const SPOOLED = /^shoal-save-[0-9a-f]{16}$/

interface Inode { dev: number | bigint, ino: number | bigint }

/**
 * The files a node lives by, among what is to be added: its keys, which must not be published, and its locks, which the system
 * drops when any descriptor of such a file is closed (storage/process-lock.ts). Told by device and inode, whatever path leads there.
 */
export class OwnFiles {
  readonly #directory: Inode
  /** Those that stand in the data directory itself. */
  readonly #files: ReadonlySet<string>
  /** Directories that were looked at, by real path: whether they are open. */
  readonly #known = new Map<string, boolean>()

  private constructor (directory: Inode, files: ReadonlySet<string>) {
    this.#directory = directory
    this.#files = files
  }

  /** Opens none of them. Throws the system's error. */
  static async of (directory: string): Promise<OwnFiles> {
    const files = new Set<string>()
    for (const entry of await readdir(directory, { withFileTypes: true })) {
      if (entry.isDirectory()) continue
      const info = await lstat(join(directory, entry.name)).catch(() => undefined) // a temporary one that is gone by now
      if (info !== undefined) files.add(nameOf(info))
    }
    return new OwnFiles(await stat(directory), files)
  }

  /** Of what was found on the way down. Throws UsageError. */
  check (path: string, info: Inode): void {
    if (isSame(info, this.#directory) || this.#files.has(nameOf(info))) throw refusal(path)
  }

  /** Of where the way down begins, or goes on after a link: looks at all that is above it, too. Throws UsageError, and the system's error. */
  async checkPlace (real: string, info: Inode): Promise<void> {
    this.check(real, info)
    if (!await this.#isOpen(real)) throw refusal(real)
  }

  async #isOpen (real: string): Promise<boolean> {
    const above = dirname(real)
    if (above === real) return true
    const known = this.#known.get(above)
    if (known !== undefined) return known
    if (isSame(await stat(above), this.#directory)) return isOpenName(basename(real))
    const open = await this.#isOpen(above)
    this.#known.set(above, open)
    return open
  }
}

function isOpenName (name: string): boolean {
  return OPEN.has(name) || SPOOLED.test(name)
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
