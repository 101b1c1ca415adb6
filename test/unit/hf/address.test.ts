import assert from 'node:assert/strict'
import fc from 'fast-check'
import { parseAddress } from '../../../src/hf/address.ts'
import { HubError } from '../../../src/hf/errors.ts'

const parsed = (url: string): Record<string, unknown> => {
  const { query: _, ...asked } = parseAddress(url) as { kind: string, query?: unknown }
  return asked
}

describe('hf: addresses', () => {
  const good: Array<[string, object]> = [
    ['/a/b/resolve/main/x.json', { kind: 'file', repo: 'a/b', revision: 'main', path: 'x.json' }],
    ['/gpt2/resolve/main/dir/x.json?download=true', { kind: 'file', repo: 'gpt2', revision: 'main', path: 'dir/x.json' }],
    ['/a/b/resolve/refs%2Fpr%2F1/x', { kind: 'file', repo: 'a/b', revision: 'refs/pr/1', path: 'x' }],
    ['/a/b/raw/v1/%E6%A8%A1', { kind: 'file', repo: 'a/b', revision: 'v1', path: '模' }],
    ['/a/b/resolve/main/../../etc/passwd', { kind: 'file', repo: 'a/b', revision: 'main', path: '../../etc/passwd' }],
    ['/api/models/a/b', { kind: 'info', repo: 'a/b', revision: undefined }],
    ['/api/models/gpt2', { kind: 'info', repo: 'gpt2', revision: undefined }],
    ['/api/models/a/b/revision/v1?blobs=True', { kind: 'info', repo: 'a/b', revision: 'v1' }],
    ['/api/models/gpt2/revision/main', { kind: 'info', repo: 'gpt2', revision: 'main' }],
    ['/api/models/a/b/tree/main', { kind: 'tree', repo: 'a/b', revision: 'main', path: '' }],
    ['/api/models/a/b/tree/main/x%2Fy', { kind: 'tree', repo: 'a/b', revision: 'main', path: 'x/y' }],
    ['/api/models/gpt2/tree/main/x/y/', { kind: 'tree', repo: 'gpt2', revision: 'main', path: 'x/y' }],
    ['/api/models/a/b/paths-info/main', { kind: 'paths-info', repo: 'a/b', revision: 'main' }],
    ['/api/models/a/b/commits/main', { kind: 'commits', repo: 'a/b', revision: 'main' }],
    ['/api/models/a/b/refs', { kind: 'refs', repo: 'a/b' }],
    ['/api/models/a/b/auth-check', { kind: 'auth-check', repo: 'a/b' }],
    ['/api/models?search=x', { kind: 'models' }],
    ['/api/whoami-v2', { kind: 'whoami' }],
    ['/v2/a/b/manifests/latest', { kind: 'gguf', repo: 'a/b', tag: 'latest' }]
  ]
  for (const [url, asked] of good) it(url, () => { assert.deepEqual(parsed(url), asked) })

  const bad: Array<[string, number, string?]> = [
    ['', 404], ['*', 400], ['http://evil/a/b/resolve/main/x', 400], ['/%', 400], ['/%ff/b/resolve/main/x', 400], ['/', 404], ['/a', 404], ['/a/b', 404], ['/a/b/resolve', 404], ['/a/b/resolve/main', 404],
    ['/a/b/c/resolve/main/x', 404], ['/a/b/tree/main/x', 404], ['/api', 404], ['/api/models/a/b/nothing', 404], ['/api/models/a/b/tree', 404], ['/api/models/a/b/revision', 404], ['/api/models/a/b/revision/x/y', 404],
    ['/api/models/a/b/refs/x', 404], ['/api/whoami-v2/x', 404], ['/api/telemetry/x', 404], ['/v2/a/b/tags/list', 404],
    ['/api/datasets/a/b', 404, 'RepoNotFound'], ['/datasets/a/b/resolve/main/x', 404, 'RepoNotFound'], ['/spaces/a/b/resolve/main/x', 404, 'RepoNotFound']
  ]
  for (const [url, status, code] of bad) {
    it(`${JSON.stringify(url)}: ${status}`, () => { assert.throws(() => parseAddress(url), (error: HubError) => error instanceof HubError && error.status === status && error.code === code) })
  }

  it('are read or refused, whatever they are', () => {
    fc.assert(fc.property(fc.array(fc.oneof(fc.string(), fc.constantFrom('api', 'models', 'resolve', 'tree', '..', '', '%2e%2e', 'cid', 'v2', 'manifests'))), parts => {
      try {
        assert.ok(parseAddress(`/${parts.join('/')}`).kind.length > 0)
      } catch (error) {
        assert.ok(error instanceof HubError)
      }
    }))
  })
})
