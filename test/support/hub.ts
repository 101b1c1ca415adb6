/**
 * A Hub of our own, that stands for the real one: a server for metadata and small files, and another origin that large ones are
 * redirected to. It counts what it sends, and fails on demand.
 */
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'

export interface HubFaults {
  /** Answers each request with this. */
  down?: { status: number, headers?: Record<string, string>, body?: string }
  /** Says nothing for so long, and of metadata nothing after the head when that is all there is to be. */
  late?: { ms: number, headOnly?: boolean }
  /** The connection breaks after so many bytes of a file, so many times. */
  cut?: { after: number, times: number }
  /** A file stands still after so many bytes. */
  stall?: { after: number, times: number }
  /** One byte of this file is another one. */
  wrong?: string
  /** Answers ranges with the whole. */
  noRanges?: boolean
  /** Each file at so many bytes a second. */
  bytesPerSecond?: number
}

interface Repo { commits: Map<string, Map<string, Buffer>>, branches: Map<string, string>, gated: boolean, isPrivate: boolean, tokens: Set<string>, saidBytes: number | undefined }
interface File { path: string, content: Buffer, lfs: boolean }

const sha1 = (content: Uint8Array): string => createHash('sha1').update(`blob ${content.length}\0`).update(content).digest('hex')
const sha256 = (content: Uint8Array): string => createHash('sha256').update(content).digest('hex')
const PIECE = 64 * 1024

export class Hub implements AsyncDisposable {
  readonly faults: HubFaults = {}
  /** "METHOD /path", in the order they came. */
  readonly asked: string[] = []
  /** Bytes of files and of everything that left. */
  fileBytes = 0
  bytes = 0
  /** Tokens that came to the origin that must not see any. */
  leaked: string[] = []
  tokensSeen = new Set<string>()
  url = ''
  readonly #repos = new Map<string, Repo>()
  readonly #aliases = new Map<string, string>()
  readonly #front: Server
  readonly #store: Server
  #storeUrl = ''

  private constructor () {
    this.#front = createServer((request, response) => { this.#serve(request, response).catch(() => { response.destroy() }) })
    this.#store = createServer((request, response) => { this.#serveStore(request, response).catch(() => { response.destroy() }) })
  }

  static async start (): Promise<Hub> {
    const hub = new Hub()
    for (const server of [hub.#front, hub.#store]) await once(server.listen(0, '127.0.0.1'), 'listening')
    hub.url = `http://127.0.0.1:${(hub.#front.address() as AddressInfo).port}`
    hub.#storeUrl = `http://127.0.0.1:${(hub.#store.address() as AddressInfo).port}`
    return hub
  }

  /** A new commit on a branch; says its name. Files of 64 KiB and more, and all that end with .safetensors, are in LFS. `saidBytes`: the size it says each has. */
  push (name: string, files: Record<string, Buffer>, { branch = 'main', gated = false, isPrivate = false, tokens = [], saidBytes }: { branch?: string, gated?: boolean, isPrivate?: boolean, tokens?: string[], saidBytes?: number } = {}): string {
    const repo = this.#repos.get(name) ?? { commits: new Map(), branches: new Map(), gated, isPrivate, tokens: new Set(tokens), saidBytes }
    const commit = createHash('sha1').update(name).update(JSON.stringify(Object.entries(files).map(([path, content]) => [path, sha256(content)]))).digest('hex')
    repo.commits.set(commit, new Map(Object.entries(files)))
    repo.branches.set(branch, commit)
    this.#repos.set(name, repo)
    return commit
  }

  /** Another name of a repository, which had it before or has other letters: it answers with the name of today. */
  alias (name: string, of: string): void { this.#aliases.set(name, of) }

  /** From now on it gives the files to these tokens alone. */
  gate (name: string, tokens: string[]): void {
    const repo = this.#repos.get(name)
    if (repo !== undefined) Object.assign(repo, { gated: true, tokens: new Set(tokens) })
  }

  async stop (): Promise<void> {
    for (const server of [this.#front, this.#store]) {
      server.closeAllConnections()
      await new Promise<void>(resolve => { server.close(() => { resolve() }) })
    }
  }

  async [Symbol.asyncDispose] (): Promise<void> { await this.stop() }

  async #serve (request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? '/', this.url)
    this.asked.push(`${request.method} ${url.pathname}`)
    const token = /^Bearer (.*)$/.exec(request.headers.authorization ?? '')?.[1]
    if (token !== undefined) this.tokensSeen.add(token)
    if (this.faults.down !== undefined) {
      response.writeHead(this.faults.down.status, this.faults.down.headers).end(this.faults.down.body)
      return
    }
    if (this.faults.late !== undefined) {
      await new Promise(resolve => setTimeout(resolve, this.faults.late?.ms).unref())
      if (this.faults.late?.headOnly === true) {
        response.writeHead(200, { 'content-length': 100 }).flushHeaders()
        return
      }
    }
    const parts = url.pathname.split('/').slice(1).map(decodeURIComponent)
    if (parts[0] === 'api') { this.#serveApi(parts.slice(2), token, response); return }
    const [org, short, action, revision = '', ...path] = parts
    const found = this.#find(`${org}/${short}`, revision, token, response)
    if (found === undefined || action !== 'resolve') return
    const { repo, commit, files } = found
    if (repo.gated && !repo.tokens.has(token ?? '')) { this.#refuse(response, token === undefined ? 401 : 403, 'GatedRepo'); return }
    const file = files.find(file => file.path === path.join('/'))
    if (file === undefined) { this.#refuse(response, 404, 'EntryNotFound'); return }
    response.setHeader('x-repo-commit', commit)
    if (!file.lfs) { await this.#send(request, response, file); return }
    response.writeHead(302, { location: `${this.#storeUrl}/${sha256(file.content)}?signed=yes`, 'x-linked-size': file.content.length, 'x-linked-etag': `"${sha256(file.content)}"` }).end()
  }

  async #serveStore (request: IncomingMessage, response: ServerResponse): Promise<void> {
    if (request.headers.authorization !== undefined) this.leaked.push(request.headers.authorization)
    const oid = (request.url ?? '').slice(1).split('?')[0]
    for (const repo of this.#repos.values()) {
      for (const files of repo.commits.values()) {
        for (const [path, content] of files) if (sha256(content) === oid) { await this.#send(request, response, { path, content, lfs: true }); return }
      }
    }
    response.writeHead(403).end()
  }

  #serveApi (parts: string[], token: string | undefined, response: ServerResponse): void {
    const [org, short, action, revision = 'main'] = parts
    const found = this.#find(`${org}/${short}`, revision, token, response)
    if (found === undefined) return
    const { repo, commit, files } = found
    if (action === 'auth-check') {
      if (repo.gated && !repo.tokens.has(token ?? '')) this.#refuse(response, token === undefined ? 401 : 403, 'GatedRepo')
      else this.#json(response, {})
    } else if (action === 'refs') {
      this.#json(response, { branches: [...repo.branches].map(([name, targetCommit]) => ({ name, ref: `refs/heads/${name}`, targetCommit })), converts: [], tags: [], pullRequests: [] })
    } else {
      this.#json(response, {
        id: this.#aliases.get(`${org}/${short}`) ?? `${org}/${short}`, sha: commit, private: repo.isPrivate, gated: repo.gated ? 'auto' : false,
        siblings: files.map(({ path, content, lfs }) => ({ rfilename: path, size: repo.saidBytes ?? content.length, blobId: sha1(lfs ? Buffer.from(path) : content), ...(lfs ? { lfs: { sha256: sha256(content), size: repo.saidBytes ?? content.length, pointerSize: 130 } } : {}) }))
      })
    }
  }

  #find (name: string, revision: string, token: string | undefined, response: ServerResponse): { repo: Repo, commit: string, files: File[] } | undefined {
    const repo = this.#repos.get(this.#aliases.get(name) ?? name)
    if (repo === undefined || (repo.isPrivate && !repo.tokens.has(token ?? ''))) { this.#refuse(response, token === undefined ? 401 : 404, 'RepoNotFound'); return undefined }
    const commit = repo.branches.get(revision) ?? revision
    const files = repo.commits.get(commit)
    if (files === undefined) { this.#refuse(response, 404, 'RevisionNotFound'); return undefined }
    return { repo, commit, files: [...files].map(([path, content]) => ({ path, content, lfs: content.length >= PIECE || path.endsWith('.safetensors') })) }
  }

  #refuse (response: ServerResponse, status: number, code: string): void {
    response.writeHead(status, { 'x-error-code': code, 'x-error-message': `this is the Hub's word for ${code}` }).end()
  }

  #json (response: ServerResponse, value: object): void {
    const body = Buffer.from(JSON.stringify(value))
    this.bytes += body.length
    response.writeHead(200, { 'content-type': 'application/json', 'content-length': body.length }).end(body)
  }

  async #send (request: IncomingMessage, response: ServerResponse, { path, content }: File): Promise<void> {
    const { cut, stall, wrong, noRanges, bytesPerSecond } = this.faults
    const [, first, last] = noRanges === true ? [] : /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? '') ?? []
    const from = Number(first ?? 0)
    const to = last === undefined || last === '' ? content.length : Math.min(Number(last) + 1, content.length)
    response.writeHead(first === undefined ? 200 : 206, { 'content-length': to - from, etag: '"x"', ...(first === undefined ? {} : { 'content-range': `bytes ${from}-${to - 1}/${content.length}` }) })
    if (request.method === 'HEAD') { response.end(); return }
    let bytes = content
    if (wrong === path) { bytes = Buffer.from(content); bytes[content.length - 1] = (bytes[content.length - 1] ?? 0) ^ 1 }
    for (let at = from; at < to && !response.destroyed;) {
      const piece = bytes.subarray(at, Math.min(to, at + PIECE))
      if (cut !== undefined && cut.times > 0 && at + piece.length > cut.after) { cut.times--; response.destroy(); return }
      if (stall !== undefined && stall.times > 0 && at + piece.length > stall.after) { stall.times--; return }
      at += piece.length
      this.bytes += piece.length
      this.fileBytes += piece.length
      await new Promise<void>(resolve => { response.write(piece, () => { resolve() }) }) // called when it was closed, too
      if (bytesPerSecond !== undefined) await new Promise(resolve => setTimeout(resolve, 1_000 * piece.length / bytesPerSecond))
    }
    response.end()
  }
}
