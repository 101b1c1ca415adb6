import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { DiskError, LINKS_BYTES_MAX, LINKS_MAX, LimitExceededError, LinkNotFoundError, asError, isRecord, systemCode, writeDurably, type Clock } from '../base/index.ts'
import { COMMIT, checkRepo, checkRevision, isRepo, parseModelCid, showRepoName, type RepoName } from '../model/index.ts'
import type { LinkOrigin, ModelLink } from './types.ts'

const VERSION = 1
const FILE = 'links.json'

/**
 * Which repository names stand for which models here. All are in memory; each change is written whole, under another name,
 * synced and renamed, before anybody sees it. Without a directory they live as long as the node.
 */
export class Links {
  readonly #path: string | undefined
  readonly #clock: Clock
  readonly #links: Map<string, ModelLink>
  #last: Promise<unknown> = Promise.resolve()

  /** Throws DiskError when the file cannot be read, or holds something else. */
  static async load (directory: string | undefined, clock: Clock): Promise<Links> {
    const path = directory === undefined ? undefined : join(directory, FILE)
    return new Links(path, clock, path === undefined ? [] : await read(path))
  }

  private constructor (path: string | undefined, clock: Clock, links: readonly ModelLink[]) {
    this.#path = path
    this.#clock = clock
    this.#links = new Map(links.map(link => [keyOf(link), link]))
  }

  /** By name, then revision. */
  list (): ModelLink[] {
    return [...this.#links.values()].sort((a, b) => a.repo < b.repo ? -1 : a.repo > b.repo ? 1 : a.revision < b.revision ? -1 : 1)
  }

  get (name: RepoName): ModelLink | undefined { return this.#links.get(keyOf(name)) }

  /** The revisions of one name. */
  of (repo: string): ModelLink[] {
    return [...this.#links.values()].filter(link => link.repo === repo)
  }

  /** Replaces what the name stood for. Throws InvalidRepoNameError, InvalidCidError, LimitExceededError, DiskError. */
  async put ({ repo, revision }: RepoName, text: string, origin?: LinkOrigin): Promise<ModelLink> {
    checkRepo(repo)
    if (revision !== origin?.commit) checkRevision(revision)
    const link: ModelLink = { repo, revision, cid: parseModelCid(text).toString(), linkedAt: this.#clock.now(), ...(origin === undefined ? {} : { origin }) }
    await this.#change(links => {
      links.set(keyOf(link), link)
      if (links.size > LINKS_MAX) throw new LimitExceededError(`a node keeps ${LINKS_MAX} names at most; take some away with: shoal unlink`)
    })
    return link
  }

  /** Throws LinkNotFoundError, DiskError. */
  async delete (name: RepoName): Promise<ModelLink> {
    let was: ModelLink | undefined
    await this.#change(links => {
      was = links.get(keyOf(name))
      links.delete(keyOf(name))
      if (was === undefined) throw notFound(name)
    })
    if (was === undefined) throw notFound(name)
    return was
  }

  /** One after the other: each writes what the one before has left. */
  async #change (edit: (links: Map<string, ModelLink>) => void): Promise<void> {
    const turn = this.#last.then(async () => {
      const changed = new Map(this.#links)
      edit(changed)
      if (this.#path !== undefined) await write(this.#path, [...changed.values()])
      this.#links.clear()
      for (const [key, link] of changed) this.#links.set(key, link)
    })
    this.#last = turn.catch(() => undefined)
    await turn
  }
}

function keyOf ({ repo, revision }: RepoName): string {
  return `${repo}@${revision}`
}

function notFound (name: RepoName): LinkNotFoundError {
  return new LinkNotFoundError(`nothing is linked as ${showRepoName(name)} here; see what is with: shoal links`)
}

async function read (path: string): Promise<ModelLink[]> {
  try {
    const content = await readFile(path)
    if (content.length > LINKS_BYTES_MAX) throw new Error(`it is larger than ${LINKS_BYTES_MAX} bytes`)
    const value: unknown = JSON.parse(content.toString())
    if (!isRecord(value) || value.version !== VERSION || !Array.isArray(value.links)) throw new Error(`it is no list of links of version ${VERSION}`)
    if (value.links.length > LINKS_MAX) throw new Error(`it holds more than ${LINKS_MAX} links`)
    return value.links.map(checkLink)
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return []
    throw new DiskError(`${path} cannot be used: ${asError(error).message}; mend it, or move it away to begin without links`, { cause: error })
  }
}

function checkLink (link: unknown): ModelLink {
  if (!isRecord(link)) throw new Error('a link is no object')
  const { repo, revision, cid, linkedAt, origin } = link
  if (typeof repo !== 'string' || typeof revision !== 'string' || typeof cid !== 'string' || !Number.isSafeInteger(linkedAt)) throw new Error('a link lacks repo, revision, cid or linkedAt')
  const from = origin === undefined ? undefined : checkOrigin(origin)
  checkRepo(repo)
  if (revision !== from?.commit) checkRevision(revision)
  return { repo, revision, cid: parseModelCid(cid).toString(), linkedAt: Number(linkedAt), ...(from === undefined ? {} : { origin: from }) }
}

function checkOrigin (origin: unknown): LinkOrigin {
  if (!isRecord(origin) || typeof origin.commit !== 'string' || !COMMIT.test(origin.commit) || typeof origin.restricted !== 'boolean') throw new Error('a link has an origin without a commit')
  const { commit, restricted, id } = origin
  return { commit, restricted, ...(typeof id === 'string' && isRepo(id) ? { id } : {}) }
}

async function write (path: string, links: readonly ModelLink[]): Promise<void> {
  try {
    await writeDurably(path, Buffer.from(`${JSON.stringify({ version: VERSION, links }, undefined, 1)}\n`), { mode: 0o600 })
  } catch (error) {
    throw new DiskError(`the link could not be kept in ${path}: ${asError(error).message}`, { cause: error })
  }
}
