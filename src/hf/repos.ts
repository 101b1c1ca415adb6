import { InvalidCidError } from '../base/index.ts'
import { CID_ORG, DEFAULT_REVISION, parseModelCid, printable } from '../model/index.ts'
import type { ModelDescription, ModelLink, ShoalNode } from '../node/types.ts'
import { HubError } from './errors.ts'
import { commitOf } from './identity.ts'

/** A revision of a repository, found: `commit` stands for it wherever clients keep one. */
export interface Resolved {
  repo: string
  cid: string
  commit: string
  /** Milliseconds since 1970: when it was linked; of one named by its CID, none. */
  linkedAt: number | undefined
}

/** Clients give up after 10 s (huggingface_hub, constants.py); the answer should be there before. */
const DESCRIBE_MS = 8_000
/** Commits that were given out and may be asked for after their name was linked to something else. */
const COMMITS_MAX = 10_000

/** Repositories by name: those that are linked here, and `cid/<model CID>` for every model there is. */
export class Repos {
  readonly #node: Pick<ShoalNode, 'links' | 'describe'>
  readonly #given = new Map<string, Resolved>()

  constructor (node: Pick<ShoalNode, 'links' | 'describe'>) {
    this.#node = node
  }

  /** Throws HubError: RepoNotFound, RevisionNotFound. */
  resolve (repo: string, revision = DEFAULT_REVISION): Resolved {
    const links = this.links(repo)
    const wanted = revision.replace(/^refs\/(?:heads|tags)\//, '')
    const link = links.find(link => link.revision === wanted) ?? links.find(link => commitOf(link.cid) === wanted)
    const resolved = link === undefined ? this.#given.get(`${repo}@${wanted}`) : resolvedBy(link)
    if (resolved === undefined) {
      throw new HubError(404, `${printable(repo)} has no revision ${printable(revision)} here, only ${links.map(link => link.revision).slice(0, 8).join(', ')}`, { code: 'RevisionNotFound' })
    }
    this.#remember(resolved)
    return resolved
  }

  /** The revisions of a repository. Throws HubError (RepoNotFound) when it has none. */
  links (repo: string): ModelLink[] {
    const [org, text = ''] = repo.split('/')
    const links = org === CID_ORG ? named(repo, text) : this.#node.links(repo)
    if (links.length === 0) {
      throw new HubError(404, `nothing is linked as ${printable(repo)} on this node; link it with: shoal link ${/^[\w./-]{1,200}$/.test(repo) ? repo : 'ORG/NAME'} CID, or ask for cid/CID`, { code: 'RepoNotFound' })
    }
    return links
  }

  all (): ModelLink[] { return this.#node.links() }

  /** Throws NoProviderError and others when it is not held here and could not be found in time. */
  async describe ({ cid }: Resolved, signal: AbortSignal): Promise<ModelDescription> {
    return await this.#node.describe(cid, { signal, providerTimeoutMs: DESCRIBE_MS })
  }

  #remember (resolved: Resolved): void {
    const key = `${resolved.repo}@${resolved.commit}`
    this.#given.delete(key)
    this.#given.set(key, resolved)
    if (this.#given.size <= COMMITS_MAX) return
    const [oldest] = this.#given.keys()
    if (oldest !== undefined) this.#given.delete(oldest)
  }
}

function named (repo: string, text: string): ModelLink[] {
  try {
    return [{ repo, revision: DEFAULT_REVISION, cid: parseModelCid(text).toString(), linkedAt: NaN }]
  } catch (error) {
    if (error instanceof InvalidCidError) throw new HubError(404, error.message, { code: 'RepoNotFound', cause: error })
    throw error
  }
}

export function resolvedBy ({ repo, cid, linkedAt }: ModelLink): Resolved {
  return { repo, cid, commit: commitOf(cid), linkedAt: Number.isNaN(linkedAt) ? undefined : linkedAt }
}
