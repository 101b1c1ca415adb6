import type { Dirent } from 'node:fs'
import { lstat, readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { asError, systemCode, type Logger } from '../base/index.ts'
import type { Leftovers } from './byte-store.ts'
import type { Layout } from './layout.ts'

/** Manifests and file indexes: CIDv1, dag-cbor, BLAKE3-256, in base32. */
const CID = 'bafyr4i[a-z2-7]{52}'
/** What a store makes there, by its name. Whatever else stands there is somebody's own, and stays. */
const NAMES = {
  files: new RegExp(`^${CID}$`),
  models: new RegExp(`^${CID}$`),
  meta: new RegExp(`^${CID}\\.(car|json)(\\.new)?$`),
  tmp: /^(import-[0-9a-f]{24}|probe|mode-probe|direct-io-probe)$/
}
type Place = keyof typeof NAMES
const PLACES = ['files', 'models', 'meta', 'tmp'] as const
/** What ext4 makes at the root of a volume. */
const OF_THE_VOLUME = 'lost+found'

/** What of these directories is not of a store's making, by path. */
export async function findStrangers (layout: Layout): Promise<string[]> {
  return await look(layout, (place, entry) => !isOurs(place, entry))
}

/** Everything in these directories, by path. */
export async function findAll (layout: Layout): Promise<string[]> {
  return await look(layout, () => true)
}

async function look (layout: Layout, wanted: (place: Place, entry: Dirent) => boolean): Promise<string[]> {
  const found: string[] = []
  for (const place of PLACES) {
    const entries = await readdir(layout[place], { withFileTypes: true }).catch(error => {
      if (['ENOENT', 'ENOTDIR'].includes(systemCode(error) ?? '')) return [] // a file of that name is told by who makes the directory
      throw error
    })
    for (const entry of entries) if (entry.name !== OF_THE_VOLUME && wanted(place, entry)) found.push(join(layout[place], entry.name))
  }
  return found
}

function isOurs (place: Place, entry: Dirent): boolean {
  return NAMES[place].test(entry.name) && (place === 'models' ? entry.isDirectory() : entry.isFile())
}

/** Imports do not survive their process. */
export async function clearImports ({ tmp }: Layout): Promise<void> {
  for (const entry of await readdir(tmp, { withFileTypes: true })) if (isOurs('tmp', entry)) await rm(join(tmp, entry.name), { force: true })
}

/** A name of some bytes, which go with the last of `names`. */
interface Name { inode: string, names: number, bytes: number }
interface Leftover { path: string, holds: Name[] }

/** What a store made and `belongs` to nothing any more. */
export async function findLeftovers (layout: Layout, belongs: (place: Place, name: string) => boolean, logger: Logger): Promise<Leftovers> {
  const paths = await look(layout, (place, entry) => isOurs(place, entry) && !belongs(place, entry.name))
  const found: Leftover[] = []
  for (const path of paths) found.push({ path, holds: await namesBelow(path) })
  return {
    bytes: freedBy(found),
    remove: async () => {
      const removed: Leftover[] = []
      for (const leftover of found) {
        try {
          await rm(leftover.path, { recursive: true, force: true })
          removed.push(leftover)
        } catch (error) {
          // It must not keep the others, or what is to be evicted, from going.
          logger.warn({ path: leftover.path, error: asError(error).message }, 'a leftover cannot be deleted')
        }
      }
      return freedBy(removed)
    }
  }
}

async function namesBelow (path: string): Promise<Name[]> {
  const info = await lstat(path).catch(() => undefined) // gone already: nothing to free
  if (info === undefined) return []
  if (!info.isDirectory()) return [{ inode: `${info.dev}:${info.ino}`, names: info.nlink, bytes: info.blocks * 512 }]
  const names: Name[] = []
  for (const name of await readdir(path).catch(() => [])) names.push(...await namesBelow(join(path, name)))
  return names
}

/** Bytes that have another name elsewhere stay. */
function freedBy (leftovers: Leftover[]): number {
  const left = new Map<string, number>()
  let bytes = 0
  for (const { holds } of leftovers) {
    for (const { inode, names, bytes: held } of holds) {
      const others = (left.get(inode) ?? names) - 1
      left.set(inode, others)
      if (others === 0) bytes += held
    }
  }
  return bytes
}
