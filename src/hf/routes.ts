import type { IncomingMessage, ServerResponse } from 'node:http'
import { HF_PAGE_ENTRIES_MAX, UPSTREAM_TOKEN_BYTES_MAX, type Clock } from '../base/index.ts'
import type { Caller, ModelDescription, ShoalNode } from '../node/types.ts'
import type { Asked } from './address.ts'
import { Body, headDue } from './body.ts'
import type { Buffers } from './buffers.ts'
import { canHold, positionOf } from '../model/index.ts'
import { HubError } from './errors.ts'
import { identityOf } from './identity.ts'
import { commitsOf, ggufFor, modelInfo, pathsInfo, refsOf, treeOf, withCommit } from './listing.ts'
import { answerFor } from './ranges.ts'
import { resolvedBy, type Repos, type Resolved } from './repos.ts'
import { streamOrigin } from './stream-origin.ts'
import { streamFile, streamPieces } from './stream.ts'

export interface Call {
  node: ShoalNode
  repos: Repos
  buffers: Buffers
  clock: Clock
  request: IncomingMessage
  response: ServerResponse
  asked: Asked
  body: () => Promise<Buffer>
  /** To be called when the first byte of a file is there. */
  began: () => void
  /** Aborts when the reader is gone, and when the server stops. */
  signal: AbortSignal
}

/** Answers one request. Throws HubError, and what the node throws. */
export async function answer (call: Call): Promise<void> {
  const { asked, repos } = call
  allow(call, asked.kind === 'paths-info' ? ['POST'] : ['GET', 'HEAD'])
  switch (asked.kind) {
    case 'whoami': json(call, whoami(call.request)); return
    case 'models': json(call, models(repos, asked.query)); return
    case 'refs': json(call, await refs(call, asked.repo)); return
    case 'auth-check':
      if (repos.links(asked.repo) === undefined) await repos.resolve(asked.repo, undefined, callerOf(call.request))
      json(call, {})
      return
    case 'commits': json(call, commitsOf(await repos.resolve(asked.repo, asked.revision, callerOf(call.request)))); return
    case 'info': {
      const [resolved, model] = await described(call, asked.repo, asked.revision)
      const { query } = asked
      json(call, modelInfo(resolved, model, { blobs: isTrue(query, 'blobs'), securityStatus: isTrue(query, 'securityStatus'), expand: [...query.getAll('expand'), ...query.getAll('expand[]')] }))
      return
    }
    case 'tree': await tree(call, asked); return
    case 'paths-info': {
      const [resolved, model] = await described(call, asked.repo, asked.revision)
      const { paths, expand } = readPaths(call.request, await call.body())
      const entries = pathsInfo(model, paths)
      json(call, expand ? withCommit(entries, resolved) : entries)
      return
    }
    case 'gguf': {
      const [, model] = await described(call, asked.repo, undefined)
      const file = ggufFor(model, asked.tag)
      json(call, { schemaVersion: 2, ggufFile: { rfilename: file.path, size: file.size, blobId: identityOf(file).oid } })
      return
    }
    case 'file': await file(call, asked)
  }
}

function allow ({ request }: Call, methods: readonly string[]): void {
  if (methods.includes(request.method ?? '')) return
  throw new HubError(405, `${request.method ?? 'this method'} is not answered here: models are published with shoal add`, { headers: { allow: methods.join(', ') } })
}

/** Whoever asks: of what came from the upstream, it decides who may have it. */
function callerOf ({ headers }: IncomingMessage): Caller {
  const [, token] = /^Bearer ([\x21-\x7e]+)$/i.exec(headers.authorization ?? '') ?? []
  return { token: token !== undefined && token.length <= UPSTREAM_TOKEN_BYTES_MAX ? token : undefined }
}

async function refs ({ repos, node, request }: Call, repo: string): Promise<object> {
  const links = repos.links(repo)
  if (links !== undefined) return refsOf(links)
  const told = await node.origin?.refs(repo, callerOf(request))
  if (typeof told !== 'object' || told === null) throw new HubError(502, `the upstream's answer about the revisions of ${repo} makes no sense`)
  return told
}

async function described ({ repos, signal, request }: Call, repo: string, revision: string | undefined): Promise<[Resolved, ModelDescription]> {
  const resolved = await repos.resolve(repo, revision, callerOf(request))
  return [resolved, await repos.describe(resolved, signal)]
}

async function tree (call: Call, asked: Asked & { kind: 'tree' }): Promise<void> {
  const [resolved, model] = await described(call, asked.repo, asked.revision)
  const { query, path } = asked
  const all = treeOf(model, path, { recursive: isTrue(query, 'recursive') })
  const limit = wholeNumber(query, 'limit', HF_PAGE_ENTRIES_MAX, 1, HF_PAGE_ENTRIES_MAX)
  const from = wholeNumber(query, 'cursor', 0, 0, Number.MAX_SAFE_INTEGER)
  const page = all.slice(from, from + limit)
  const headers: Record<string, string> = {}
  if (from + limit < all.length) {
    const next = new URLSearchParams(query)
    next.set('cursor', String(from + limit))
    const [address = ''] = (call.request.url ?? '').split('?')
    // The guard has seen to it that the host is one of ours.
    headers.link = `<http://${call.request.headers.host ?? ''}${address}?${next.toString()}>; rel="next"`
  }
  json(call, isTrue(query, 'expand') ? withCommit(page, resolved) : page, { ...headers, 'x-repo-commit': resolved.commit })
}

async function file (call: Call, asked: Asked & { kind: 'file' }): Promise<void> {
  const { request, response, clock, signal } = call
  const due = headDue(clock, signal)
  const [resolved, model] = await described(call, asked.repo, asked.revision)
  const found = model.files[positionOf(model.files, asked.path)]
  if (found === undefined) {
    const { from } = resolved
    if (from.kind === 'origin' && from.model.foreign === undefined && !canHold(asked.path)) throw new HubError(504, 'only the upstream knows files of such names, and it is silent; ask again when it is back')
    // With the commit, clients remember that it is not there.
    throw new HubError(404, `there is no file ${JSON.stringify(asked.path.slice(0, 200))} in this revision`, { code: 'EntryNotFound', headers: { 'x-repo-commit': resolved.commit } })
  }
  const { etag } = identityOf(found)
  const answer = answerFor(request.method ?? '', request.headers, { etag, size: found.size })
  const headers: Record<string, string | number> = {
    'x-repo-commit': resolved.commit,
    etag: `"${etag}"`,
    'accept-ranges': 'bytes',
    // What strangers published must not run in a browser.
    'content-type': 'application/octet-stream',
    'content-disposition': disposition(found.path),
    'x-content-type-options': 'nosniff',
    'content-security-policy': 'default-src \'none\'; sandbox'
  }
  if (answer.status === 304) {
    response.writeHead(304, headers).end()
    return
  }
  if (answer.status === 412) throw new HubError(412, 'the file is not the one that If-Match names', { headers: { etag: `"${etag}"` } })
  if (answer.status === 416) throw new HubError(416, `the file has ${found.size} bytes; there are none in that range`, { headers: { 'content-range': `bytes */${found.size}`, 'accept-ranges': 'bytes' } })
  const { range, status } = answer
  headers['content-length'] = range.length
  if (status === 206) headers['content-range'] = `bytes ${range.offset}-${range.offset + range.length - 1}/${found.size}`
  if (request.method === 'HEAD') {
    response.writeHead(status, headers).end()
    return
  }
  const { from } = resolved
  const begin = (): void => {
    call.began()
    response.writeHead(status, headers)
  }
  const body = new Body({ response, clock, begin, due, signal })
  if (from.kind === 'model') await streamFile(call, { cid: from.cid, path: found.path, size: found.size, range }, body)
  else if (from.model.foreign?.some(({ path }) => path === found.path) === true) await streamPieces(from.model.pass(found.path, range, signal), body)
  else await streamOrigin(call, from.model, { path: found.path, size: found.size, range }, body)
}

/** Paths of models hold nothing that would have to be quoted (model/path.ts); foreign ones do (RFC 6266, appendix D). */
function disposition (path: string): string {
  const name = path.slice(path.lastIndexOf('/') + 1)
  return `attachment; filename*=UTF-8''${encodeURIComponent(name).replace(/['()*]/g, escaped)}; filename="${name.replace(/[^\x20-\x7e]|["\\%]/gu, '_')}";`
}

function escaped (character: string): string {
  return `%${character.charCodeAt(0).toString(16).toUpperCase()}`
}

/** Whoever can reach this endpoint may read, so any token is good; without one, clients expect to be refused. */
function whoami ({ headers }: IncomingMessage): object {
  if (headers.authorization === undefined) throw new HubError(401, 'no token was sent; this endpoint needs none, and any will do')
  return {
    type: 'user', id: 'shoal', name: 'shoal', fullname: 'Shoal node', email: null, emailVerified: false, canPay: false, isPro: false, avatarUrl: '', orgs: [],
    auth: { type: 'access_token', accessToken: { displayName: 'shoal', role: 'read' } }
  }
}

/** The repositories that are linked here, each once. */
function models (repos: Repos, query: URLSearchParams): object[] {
  const search = query.get('search')?.toLowerCase() ?? ''
  const author = query.get('author')
  const byName = new Map(repos.all().map(link => [link.repo, link]))
  return [...byName.values()]
    .filter(({ repo }) => repo.toLowerCase().includes(search) && (author === null || repo.startsWith(`${author}/`)))
    .slice(0, wholeNumber(query, 'limit', HF_PAGE_ENTRIES_MAX, 1, HF_PAGE_ENTRIES_MAX))
    .map(link => {
      const { repo, commit } = resolvedBy(link)
      return { _id: commit.slice(0, 24), id: repo, modelId: repo, sha: commit, private: false, gated: false, downloads: 0, likes: 0, tags: [], createdAt: new Date(link.linkedAt).toISOString() }
    })
}

/** A form, as huggingface_hub sends it, or JSON, as others do. */
function readPaths ({ headers }: IncomingMessage, body: Buffer): { paths: string[], expand: boolean } {
  if (!/^application\/json\b/i.test(headers['content-type'] ?? '')) {
    const form = new URLSearchParams(body.toString())
    return { paths: form.getAll('paths'), expand: isTrue(form, 'expand') }
  }
  let given: { paths?: unknown, expand?: unknown } | null
  try {
    given = JSON.parse(body.toString()) as typeof given
  } catch {
    throw new HubError(400, 'the body is no JSON')
  }
  const paths = typeof given?.paths === 'string' ? [given.paths] : given?.paths
  if (!Array.isArray(paths) || !paths.every(path => typeof path === 'string')) throw new HubError(400, 'the body must hold "paths", a list of texts')
  return { paths, expand: given?.expand === true }
}

function isTrue (query: URLSearchParams, name: string): boolean {
  return /^(?:true|1)$/i.test(query.get(name) ?? '')
}

function wholeNumber (query: URLSearchParams, name: string, none: number, min: number, max: number): number {
  const text = query.get(name)
  if (text === null) return none
  if (!/^\d{1,15}$/.test(text)) throw new HubError(400, `${name} must be a whole number`)
  return Math.min(Math.max(Number(text), min), max)
}

function json ({ request, response }: Call, value: object, headers: Record<string, string> = {}): void {
  const body = Buffer.from(JSON.stringify(value))
  response.writeHead(200, { ...headers, 'content-type': 'application/json; charset=utf-8', 'content-length': body.length, 'x-content-type-options': 'nosniff' })
  response.end(request.method === 'HEAD' ? undefined : body)
}
