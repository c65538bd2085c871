// Asks a Loki as Grafana's own data source does: lines of streams for log panels, a table for an instant query.
import {
  DataSourceApi, FieldType, LoadingState, createDataFrame,
  type DataFrame, type DataQueryRequest, type DataQueryResponse,
} from '@grafana/data';
import { getTemplateSrv } from '@grafana/runtime';
import { from, type Observable } from 'rxjs';
import { inRegex, tables } from './prometheus';

interface Query {
  refId: string;
  expr: string;
  queryType: string;
  maxLines?: number;
}
interface Stream {
  stream: Record<string, string>;
  values: Array<[string, string]>;
}

async function ask(path: string, parameters: Record<string, string>) {
  const answer = await fetch(`/loki${path}?${new URLSearchParams(parameters)}`);
  if (!answer.ok) {
    throw new Error(`${await answer.text()} in ${JSON.stringify(parameters)}`);
  }
  return (await answer.json()).data.result;
}

export class LokiSource extends DataSourceApi<any> {
  async testDatasource() {
    return { status: 'success', message: '' };
  }

  query(request: DataQueryRequest<any>): Observable<DataQueryResponse> {
    return from(this.answer(request));
  }

  private async answer(request: DataQueryRequest<any>): Promise<DataQueryResponse> {
    const frames = await Promise.all(request.targets.map((each) => this.frames(each, request)));
    return { data: frames.flat(), state: LoadingState.Done };
  }

  private async frames(query: Query, request: DataQueryRequest<any>): Promise<DataFrame[]> {
    const start = request.range.from.valueOf() / 1000;
    const end = request.range.to.valueOf() / 1000;
    const scoped = { ...request.scopedVars, __range: { value: `${Math.round(end - start)}s` } };
    const expr = getTemplateSrv().replace(query.expr, scoped, inRegex);
    if (query.queryType === 'instant') {
      const found = await ask('/api/v1/query', { query: expr, time: `${end}` });
      return tables(query, found.map((each: any) => ({ metric: each.metric, values: [each.value] })), true);
    }
    const limit = `${query.maxLines ?? 1000}`;
    const streams: Stream[] = await ask('/api/v1/query_range', { query: expr, start: `${start}`, end: `${end}`, limit });
    const lines = streams.flatMap(({ stream, values }) => values.map(([at, text]) => ({ at, text, stream })));
    lines.sort((one, other) => (one.at < other.at ? 1 : -1));
    const field = (name: string, type: FieldType, values: unknown[]) => ({ name, type, values, config: {} });
    return [
      createDataFrame({
        refId: query.refId,
        fields: [
          field('Time', FieldType.time, lines.map((each) => Number(each.at.slice(0, -6)))),
          field('Line', FieldType.string, lines.map((each) => each.text)),
          field('level', FieldType.string, lines.map((each) => each.stream.level ?? each.stream.detected_level ?? '')),
        ],
      }),
    ];
  }
}
