import { mkdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { DiskError, StoreVersionError, asError, systemCode, writeDurably } from '../base/index.ts'
import { findAll } from './leftovers.ts'

/**
 * What stands where in the data directory:
 *
 *     version         the number of this layout
 *     lock, lock.pid  one process at a time
 *     catalog.sqlite  what is here, and which blocks of it are recorded
 *     files/<CID>     one sparse file for each file index
 *     models/<CID>/   hard links to the complete files of a model, under their paths
 *     meta/<CID>.*    manifest and indexes again, and pins: what a lost catalog is rebuilt from
 *     tmp/            imports on their way in
 */
export interface Layout {
  readonly directory: string
  readonly version: string
  readonly lock: string
  readonly lockOwner: string
  readonly catalog: string
  readonly files: string
  readonly models: string
  readonly meta: string
  readonly tmp: string
}

export const LAYOUT_VERSION = 1

export function layoutOf (directory: string): Layout {
  return {
    directory,
    version: join(directory, 'version'),
    lock: join(directory, 'lock'),
    lockOwner: join(directory, 'lock.pid'),
    catalog: join(directory, 'catalog.sqlite'),
    files: join(directory, 'files'),
    models: join(directory, 'models'),
    meta: join(directory, 'meta'),
    tmp: join(directory, 'tmp')
  }
}

/** Throws StoreVersionError for a directory that this program must not touch: another version's, or somebody else's. Writes nothing. True when it has a version. */
export async function checkVersion (layout: Layout): Promise<boolean> {
  const text = await readFile(layout.version, 'utf8').catch(error => {
    if (systemCode(error) === 'ENOENT') return undefined
    throw unreadable(layout, error)
  })
  if (text === undefined) {
    await checkUnused(layout)
    return false
  }
  const version = /^[0-9]{1,9}\n?$/.test(text) ? Number.parseInt(text, 10) : undefined
  if (version === LAYOUT_VERSION) return true
  throw new StoreVersionError(version === undefined
    ? `${layout.version} does not hold a version number; is ${layout.directory} a Shoal data directory? If it is, write ${LAYOUT_VERSION} into that file`
    : `${layout.directory} has the storage version ${version} and this Shoal writes ${LAYOUT_VERSION}; use the newer Shoal, or another --data directory`)
}

/** Somebody's /data or /srv may have directories of these names: what is no data directory yet has nothing in them. */
async function checkUnused (layout: Layout): Promise<void> {
  const found = await findAll(layout).catch(error => { throw unreadable(layout, error) })
  if (found.length === 0) return
  const others = found.length === 1 ? '' : ` and ${found.length - 1} more`
  throw new StoreVersionError(`${layout.directory} is no Shoal data directory and holds ${found[0] ?? ''}${others}, which Shoal must not touch; give another --data directory. ` +
    `If it is one that lost its file version, write ${LAYOUT_VERSION} into ${layout.version}`)
}

function unreadable ({ directory, version }: Layout, error: unknown): DiskError {
  const code = systemCode(error)
  const cause = { cause: error }
  if (code === 'ENOTDIR') return new DiskError(`${directory} is no directory; give another --data directory`, cause)
  if (code === 'EACCES' || code === 'EPERM') return new DiskError(`no permission to read ${version}; run as the user that ${directory} belongs to, or give another --data directory`, cause)
  return new DiskError(`cannot read ${version}: ${asError(error).message}; mend that, or give another --data directory`, cause)
}

/** Makes what is missing. The caller holds the lock. */
export async function makeLayout (layout: Layout): Promise<void> {
  for (const directory of [layout.files, layout.models, layout.meta, layout.tmp]) await mkdir(directory, { recursive: true })
  if (!await checkVersion(layout)) await writeDurably(layout.version, Buffer.from(`${LAYOUT_VERSION}\n`))
}
