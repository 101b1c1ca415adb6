import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { smallModel, temporaryDirectory } from '../../compliance/store-fixtures.ts'

const CHILD = fileURLToPath(new URL('failing-sync-child.ts', import.meta.url))

/** The first fdatasync of that file fails with this. strace counts by thread, so the child has only one for its files. */
function strace (path: string, code: string, ...command: string[]): { status: number | null, stdout: string, stderr: string } {
  const options = ['-f', '-qq', '-o', '/dev/null', '-P', path, '-e', 'trace=fdatasync', '-e', `inject=fdatasync:error=${code}:when=1`]
  return spawnSync('strace', [...options, ...command], { encoding: 'utf8', env: { ...process.env, UV_THREADPOOL_SIZE: '1' } })
}

describe('files: a disk that fails to sync', function () {
  this.timeout(30_000)

  for (const code of ['EIO', 'EBADE']) {
    it(`loses what it did not record, tells so, and goes on when it works again (${code}; needs strace)`, async function () {
      if (strace('/nowhere', code, 'true').status !== 0) this.skip()
      await using directory = await temporaryDirectory()
      const key = smallModel(1, 3).model.indexes[0]?.cid.toString() ?? ''
      const { stdout, stderr } = strace(join(directory.path, 'files', key), code, process.execPath, CHILD, directory.path)
      assert.notEqual(stdout, '', stderr)
      assert.deepEqual(JSON.parse(stdout), [
        'lost 0', 'read-only', 'DiskError', 'recorded ', 'StoreReadOnlyError', 'writable', 'present 0', 'present 1', 'present 2', 'complete true', 'bad 0'
      ])
    })
  }
})
