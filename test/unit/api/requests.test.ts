import assert from 'node:assert/strict'
import { mkdtemp, rm } from 'node:fs/promises'
import { request } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import * as schemas from '../../../src/api/schemas.ts'
import { createApiServer, type ApiServer } from '../../../src/api/server.ts'
import type { ShoalNode } from '../../../src/node/types.ts'
import { CID, FakeNode } from './fake-node.ts'

const { AddBody, CidParam, ConnectBody, DrainBody, GcBody, LinkBody, LinkQuery, LoadBody, PinBody, ShowQuery, VerifyBody, WaitBody } = schemas

describe('api: what is wrong with a request', () => {
  let directory = ''
  let socketPath = ''
  let server: ApiServer

  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'shoal-requests-'))
    socketPath = join(directory, 'api.sock')
    server = createApiServer({ node: new FakeNode() as unknown as ShoalNode, socketPath })
    await server.start()
  })
  afterEach(async () => {
    await server.stop()
    await rm(directory, { recursive: true })
  })

  const messageOf = async (method: string, path: string, body?: unknown): Promise<string> => await new Promise((resolve, reject) => {
    const text = body === undefined ? '' : JSON.stringify(body)
    request({ socketPath, method, path, headers: { host: 'localhost', 'content-type': 'application/json', 'content-length': Buffer.byteLength(text) } }, answer => {
      let told = ''
      answer.setEncoding('utf8').on('data', (chunk: string) => { told += chunk }).on('end', () => {
        const { error } = JSON.parse(told) as { error: { name: string, message: string } }
        resolve(`${error.name}: ${error.message}`)
      })
    }).on('error', reject).end(text)
  })

  it('is told as the command line tells it, with what is allowed', async () => {
    const cases: Array<[string, string, unknown, string]> = [
      ['POST', `/v1/models/${CID}/load`, { order: 'x' }, 'order must be rarest or sequential'],
      ['POST', '/v1/models', { path: '/x', replicas: 99 }, 'replicas must be a whole number, 0 to 64'],
      ['POST', '/v1/models', { path: '/x', replicas: 1e300 }, 'replicas must be a whole number, 0 to 64'],
      ['POST', '/v1/models', { path: 'x', follow: 'yes' }, 'path must be an absolute path; follow must be true or false'],
      ['POST', '/v1/models', {}, 'path is missing'],
      ['POST', '/v1/gc', { dryrun: true }, 'it has "dryrun", and takes only dryRun'],
      ['POST', '/v1/gc', [], 'it must be an object'],
      ['GET', `/v1/models/${'x'.repeat(300)}`, undefined, 'cid must have 256 characters at most'],
      ['GET', `/v1/models/${CID}?tensors=maybe`, undefined, 'tensors must be true or false'],
      ['POST', `/v1/models/${CID}/load`, { include: ['', 7] }, 'include.0 must not be empty; include.1 must be text']
    ]
    for (const [method, path, body, expected] of cases) assert.equal(await messageOf(method, path, body), `UsageError: the request is wrong: ${expected}`)
  })

  it('is nowhere told in the words of the library that checks it', () => {
    const long = 'x'.repeat(100_000)
    for (const schema of [AddBody, CidParam, ConnectBody, DrainBody, GcBody, LinkBody, LinkQuery, LoadBody, PinBody, ShowQuery, VerifyBody, WaitBody]) {
      const fields = Object.keys(schema.shape)
      const values = [undefined, null, '', long, -1, 1.5, 1e300, true, {}, [], [long], Array.from({ length: 1_000 }, () => '/x')]
      for (const value of [null, 7, [], { [long]: 1 }, ...values.map(value => Object.fromEntries(fields.map(field => [field, value])))]) {
        for (const { message } of schema.safeParse(value).error?.issues ?? []) {
          if (schema === CidParam && (value === null || typeof value !== 'object' || Array.isArray(value))) continue // a path always has its parts
          assert.match(message, /^(?:must (?:be|have|not)|is missing$|has ")/, `${fields.join()} ${JSON.stringify(value).slice(0, 100)}: ${message.slice(0, 200)}`)
          assert.ok(message.length < 400)
        }
      }
    }
  })
})
