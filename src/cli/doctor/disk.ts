/** What `shoal doctor` looks at in the data directory and on its volume. */
import { constants } from 'node:fs'
import { access, copyFile, lstat, open, readlink, rm, stat, statfs } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { GiB, StoreVersionError, asError, systemCode } from '../../base/index.ts'
import { LEFTOVER_IDLE_MS, keyOf, leftoversIn } from '../../origin/index.ts'
import { checkVersion, layoutOf } from '../../storage/layout.ts'
import type { ShownStatus } from '../../api/types.ts'
import { count, percent, size } from '../format.ts'
import { pidIn } from '../process-state.ts'
import { fail, ok, warn, type Finding } from './finding.ts'

const FREE_FAIL_BYTES = 1 * GiB
const FREE_WARN_SHARE = 0.05
/** statfs(2): volumes on which locks or durability are another machine's word. */
const NETWORK_TYPES = new Map([[0x6969, 'NFS'], [0xff534d42, 'CIFS'], [0xfe534d42, 'SMB'], [0x65735546, 'FUSE'], [0x01021997, '9p']])
const VOLATILE_TYPES = new Map([[0x01021994, 'tmpfs'], [0x858458f6, 'ramfs']])
const SECRETS = ['identity.key', 'swarm.key', 'api.token']

export interface DataDirectory {
  path: string
  exists: boolean
  /** Something else has its name. */
  isTaken: boolean
  /** It is, or would be made in, a symbolic link to where nothing is. */
  brokenLink: { path: string, target: string } | undefined
  /** Of the daemon that has it, or had it. */
  pid: number | undefined
  /** When the catalog was last written, milliseconds since 1970. */
  newestMs: number | undefined
}

export async function lookAt (path: string): Promise<DataDirectory> {
  const there = await stat(path).catch(() => undefined) // it may be a link to where the drive is mounted
  const newest = await Promise.all(['catalog.sqlite', 'catalog.sqlite-wal'].map(async name => await lstat(join(path, name)).then(({ mtimeMs }) => mtimeMs, () => 0)))
  return {
    path,
    exists: there?.isDirectory() === true,
    isTaken: there !== undefined && !there.isDirectory(),
    brokenLink: there === undefined ? await brokenLink(path) : undefined,
    pid: await pidIn(path),
    newestMs: Math.max(...newest) || undefined
  }
}

export async function version ({ path, isTaken, brokenLink }: DataDirectory): Promise<Finding> {
  if (isTaken) return fail('versions', `${path} is no directory`, 'give another --data directory')
  if (brokenLink !== undefined) return fail('versions', `${brokenLink.path} is a symbolic link to ${brokenLink.target}, where nothing is`, 'mount the drive that it leads to, make that directory, or give another --data directory')
  try {
    return ok('versions', await checkVersion(layoutOf(path)) ? `the data directory ${path} is of this version` : `no data directory at ${path} yet; the first start makes it`)
  } catch (error) {
    return fail('versions', asError(error).message, error instanceof StoreVersionError
      ? 'start the Shoal that wrote it, or give another --data directory'
      : `run as the user that ${path} belongs to`)
  }
}

export async function disk (directory: DataDirectory, settings: { quota: number | undefined, donate: number }, status: ShownStatus | undefined): Promise<Finding[]> {
  const place = await nearest(directory.path)
  const found: Finding[] = []
  const { bsize, blocks, bavail, files, ffree, type } = await statfs(place)
  const [free, whole] = [bsize * bavail, bsize * blocks]
  const text = `${size(free)} of ${size(whole)} free on the volume of ${place}`
  const makeRoom = 'make room there (shoal rm CID; or storage.quota, down to which shoal gc evicts what was only loaded), or use a --data directory on another volume'
  if (free < FREE_FAIL_BYTES) found.push(fail('disk', text, makeRoom))
  else found.push(free < whole * FREE_WARN_SHARE ? warn('disk', text, makeRoom) : ok('disk', text))
  if (files > 0 && ffree < 1_000) found.push(fail('disk', `${ffree} of ${files} inodes are free: ${percent(files - ffree, files)} used`, 'remove small files there, or make the file system with more inodes'))
  const network = NETWORK_TYPES.get(type >>> 0)
  if (network !== undefined) found.push(warn('disk', `the volume is ${network}: its locks and syncs are another machine's word, and block writes are slow`, 'use a --data directory on a local drive'))
  const volatile = VOLATILE_TYPES.get(type >>> 0)
  if (volatile !== undefined) found.push(warn('disk', `the volume is ${volatile}: all is gone at the next boot, keys included`, 'use a --data directory on a drive'))
  found.push(...room(settings, free, status))
  if (status?.storage.writable === false) found.push(fail('disk', `the daemon holds the volume for read-only: ${status.storage.error ?? 'unknown reason'}`, 'mend that; it tries again every few seconds'))
  found.push(...await abilities(place, directory))
  return found
}

/** What was promised against what is there. */
function room ({ quota, donate }: { quota: number | undefined, donate: number }, free: number, status: ShownStatus | undefined): Finding[] {
  const held = status?.storage.heldBytes ?? 0
  const allowed = status?.storage.quotaBytes ?? quota
  const found: Finding[] = []
  if (allowed !== undefined) {
    if (held > allowed) found.push(warn('disk', `${size(held)} are held and storage.quota allows ${size(allowed)}: all of it is pinned, published or in use`, 'unpin or remove models, or raise the quota'))
    else if (allowed - held > free) found.push(warn('disk', `storage.quota leaves room for ${size(allowed - held)} more and ${size(free)} are free`, 'lower the quota, or make room'))
    else found.push(ok('disk', `storage.quota is ${size(allowed)}, ${size(held)} of it held`))
  }
  const missing = (status?.replication.donateBytes ?? donate) - (status?.replication.committedBytes ?? 0)
  if (missing > free) found.push(warn('disk', `storage.donate promises the swarm ${size(missing)} more than it has taken yet, and ${size(free)} are free`, 'lower storage.donate, or make room'))
  return found
}

/** Models that came from the upstream in part, and that nobody goes on with. */
export async function brokenOff ({ path }: DataDirectory, status: ShownStatus | undefined): Promise<Finding[]> {
  const running = new Set(status?.origin?.fetches.map(keyOf))
  const left = await leftoversIn(join(path, 'origin'), { now: Date.now(), idleMs: LEFTOVER_IDLE_MS, isUsed: key => running.has(key) }).catch(() => []) // whose it is not may not look there
  const bytes = left.reduce((sum, { bytes }) => sum + bytes, 0)
  return bytes === 0 ? [] : [warn('disk', `${size(bytes)} of ${count(left.length, 'model')} that came from the upstream in part`, 'it goes on when somebody asks for it again, and goes after a week; to free it now: shoal gc')]
}

/** Writes a page and clones it: what a store would do there. Root may do this in a directory of others: no link is followed. */
async function abilities (place: string, { path, exists }: DataDirectory): Promise<Finding[]> {
  const probe = join(place, `.shoal-doctor-${process.pid}`)
  const clone = `${probe}-clone`
  try {
    await access(place, constants.W_OK)
    const file = await open(probe, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL, 0o600)
    try {
      await file.write(page(), 0, PAGE_BYTES, 0)
      await file.datasync()
    } finally {
      await file.close()
    }
    const direct = await writesDirectly(probe)
    const reflink = await copyFile(probe, clone, constants.COPYFILE_FICLONE_FORCE | constants.COPYFILE_EXCL).then(() => true, () => false)
    return [
      ok('disk', `${exists ? path : place} takes writes`),
      direct ? ok('disk', 'block writes can bypass the page cache (O_DIRECT)') : warn('disk', 'the volume refuses O_DIRECT: block writes go through the page cache and cost more CPU', 'use a local ext4 or XFS volume for speed; storage.directIo=auto works as it is'),
      reflink ? ok('disk', 'copies share their blocks (reflink)') : ok('disk', 'no reflinks: shoal add copies files on this volume; --in-place avoids that')
    ]
  } catch (error) {
    const why = systemCode(error) === 'EACCES' ? 'this user may not write there' : asError(error).message
    return [fail('disk', `${place} takes no writes: ${why}`, 'run as the user it belongs to, or give another --data directory')]
  } finally {
    await Promise.allSettled([probe, clone].map(async name => { await rm(name, { force: true }) }))
  }
}

const PAGE_BYTES = 4_096

/** WebAssembly memory lies on a page, which O_DIRECT wants. */
function page (): Uint8Array {
  return new Uint8Array(new WebAssembly.Memory({ initial: 1, maximum: 1 }).buffer, 0, PAGE_BYTES)
}

async function writesDirectly (path: string): Promise<boolean> {
  try {
    const file = await open(path, constants.O_RDWR | constants.O_DIRECT | constants.O_NOFOLLOW)
    try {
      return (await file.write(page(), 0, PAGE_BYTES, 0)).bytesWritten === PAGE_BYTES
    } finally {
      await file.close()
    }
  } catch {
    return false // EINVAL: not here
  }
}

async function brokenLink (path: string): Promise<DataDirectory['brokenLink']> {
  for (let place = path; ; place = dirname(place)) {
    const code = await stat(place).then(() => undefined, systemCode)
    if (code !== 'ENOENT') return undefined
    const target = await readlink(place).catch(() => undefined)
    if (target !== undefined) return { path: place, target }
  }
}

/** The directory, or the one that it would be made in. Of a link that leads nowhere, the one that it stands in. */
async function nearest (path: string): Promise<string> {
  for (let place = path; ; place = dirname(place)) {
    if (await stat(place).then(there => there.isDirectory(), () => false)) return place
    if (place === dirname(place)) return place
  }
}

export async function permissions ({ path, exists, isTaken, brokenLink }: DataDirectory, socketPath: string): Promise<Finding[]> {
  if (isTaken || brokenLink !== undefined) return []
  if (!exists) return [ok('permissions', 'nothing is there yet')]
  const found: Finding[] = []
  const own = process.getuid?.() ?? 0
  const { mode, uid } = await stat(path)
  if ((mode & 0o022) !== 0) found.push(fail('permissions', `${path} can be written by others (mode ${octal(mode)})`, `chmod 700 ${path}`))
  else if ((mode & 0o055) !== 0) found.push(warn('permissions', `${path} can be read by others (mode ${octal(mode)})`, `chmod 700 ${path}`))
  if (uid !== own && own !== 0) found.push(fail('permissions', `${path} belongs to user ${uid} and this is user ${own}`, 'run as that user, or give another --data directory'))
  else if (uid !== own) found.push(warn('permissions', `${path} belongs to user ${uid} and this is root: what root makes there the daemon may not read`, `run it as that user: sudo -u '#${uid}' shoal doctor`))
  for (const name of SECRETS) {
    const there = await lstat(join(path, name)).catch(() => undefined)
    if (there !== undefined && (there.mode & 0o077) !== 0) found.push(fail('permissions', `${join(path, name)} is a secret that others can read (mode ${octal(there.mode)})`, `chmod 600 ${join(path, name)}; whoever has read it can join or pose as this node`))
  }
  const socket = await lstat(socketPath).catch(() => undefined)
  if (socket?.isSocket() === true && (socket.mode & 0o077) !== 0) found.push(fail('permissions', `${socketPath} lets others command the daemon (mode ${octal(socket.mode)})`, `chmod 600 ${socketPath}`))
  return found.length > 0 ? found : [ok('permissions', `${path} and its secrets are for their user only`)]
}

function octal (mode: number): string {
  return (mode & 0o777).toString(8).padStart(4, '0')
}
