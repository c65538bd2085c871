// One board's JSON as a scene, at /d/UID, with the parameters Grafana's own addresses have (from, to, var-..., theme).
import * as data from '@grafana/data';
import * as runtime from '@grafana/runtime';
import * as scenes from '@grafana/scenes';
import { GlobalStyles, PortalContainer, ToolbarButton } from '@grafana/ui';
import { useEffect, useState } from 'react';
import { createRoot } from 'react-dom/client';
import { BrowserRouter } from 'react-router-dom';
import { catchError, map, of } from 'rxjs';
import { LokiSource } from './loki';
import { PLUGINS } from './panels';
import { PrometheusSource } from './prometheus';

const asked = new URLSearchParams(location.search);
const mode = asked.get('theme') === 'light' ? 'light' : 'dark';
const theme = data.createTheme({ colors: { mode } });
const ROW = 38;

/** What the page did, for whoever drives it: questions that failed, and whether any panel still waits. */
const report = ((window as any).report = { errors: [] as string[], board: null as any, scene: null as any });

function registerAsGrafanaDoes() {
  Object.assign(runtime.config, { theme2: theme, theme: theme.v1, bootData: { settings: {}, user: {}, navTree: [] } });
  (data as any).patchArrayVectorProrotypeMethods?.();
  const nothing = () => null;
  const property = (id: string, process: any) =>
    ({ id, path: id, name: id, editor: nothing, override: nothing, process, settings: {}, shouldApply: () => true }) as any;
  data.standardFieldConfigEditorRegistry.setInit(() => [
    property('unit', data.unitOverrideProcessor), property('min', data.numberOverrideProcessor),
    property('max', data.numberOverrideProcessor), property('decimals', data.numberOverrideProcessor),
    property('displayName', data.displayNameOverrideProcessor), property('noValue', data.stringOverrideProcessor),
    property('color', data.identityOverrideProcessor), property('thresholds', data.thresholdsOverrideProcessor),
    property('mappings', data.valueMappingsOverrideProcessor), property('links', data.dataLinksOverrideProcessor),
  ]);
  data.standardEditorsRegistry.setInit(() => []);
  const transformers = new Map(Object.values(data.standardTransformers).map((each: any) => [each.id, each]));
  data.standardTransformersRegistry.setInit(() =>
    [...transformers.values()].map(
      (transformation) => ({ id: transformation.id, name: transformation.name, transformation, editor: nothing }) as any
    )
  );
}

function provideServices() {
  const about = (id: string, type: data.PluginType) => ({ id, name: id, type, info: { logos: {} } }) as any;
  const settings = (id: number, type: string, name: string): any => ({
    id, uid: type, name, type, access: 'proxy', isDefault: id === 1, readOnly: true,
    meta: about(type, data.PluginType.datasource), jsonData: {},
  });
  const [prometheus, loki] = [settings(1, 'prometheus', 'Prometheus'), settings(2, 'loki', 'Loki')];
  const sources: Record<string, any> = { prometheus: new PrometheusSource(prometheus), loki: new LokiSource(loki) };
  const found = (reference: any) => {
    const uid = runtime.getTemplateSrv().replace(reference?.uid ?? reference ?? '') || 'prometheus';
    return [prometheus, loki].find((each) => [each.uid, each.name].includes(uid));
  };
  runtime.setDataSourceSrv({
    get: async (reference: any) => {
      const asked = found(reference);
      if (!asked) {
        throw new Error(`there is no data source ${JSON.stringify(reference)}`);
      }
      return sources[asked.type];
    },
    getList: (filters: any) =>
      [prometheus, loki].filter((each) => [filters?.pluginId ?? 'prometheus'].flat().includes(each.type)),
    getInstanceSettings: found,
    reload: () => undefined,
  } as any);
  for (const [id, plugin] of Object.entries(PLUGINS)) {
    plugin.meta = about(id, data.PluginType.panel);
  }
  runtime.setPluginImportUtils({
    importPanelPlugin: async (id: string) => PLUGINS[id],
    getPanelPluginFromCache: (id: string) => PLUGINS[id],
  } as any);
  runtime.setTemplateSrv({
    getVariables: () => [], containsTemplate: (text: any) => /\$/.test(text ?? ''), updateTimeRange: () => undefined,
    replace: (text: any, scoped: any, format: any) =>
      scenes.sceneGraph.interpolate((window as any).__grafanaSceneContext ?? report.scene, text, scoped, format),
  } as any);
  runtime.setRunRequest(((from: any, request: any) =>
    from.query(request).pipe(
      map(({ data: frames, state }: any) => {
        const isMark = (frame: any) => frame.meta?.dataTopic === data.DataTopic.Annotations;
        const [series, annotations] = [frames.filter((each: any) => !isMark(each)), frames.filter(isMark)];
        return { state, series, annotations, timeRange: request.range, request };
      }),
      catchError((error) => {
        report.errors.push(String(error.message ?? error));
        return of({ state: data.LoadingState.Error, series: [], error, timeRange: request.range });
      })
    )) as any);
  (runtime as any).setAppEvents?.(new data.EventBusSrv());
  runtime.setEchoSrv({ addBackend: () => undefined, addEvent: () => undefined, flush: () => undefined } as any);
}

function panel(each: any) {
  const queries = new scenes.SceneQueryRunner({
    queries: each.targets, datasource: each.datasource, minInterval: each.interval,
  });
  const transformed = each.transformations?.length
    ? new scenes.SceneDataTransformer({ $data: queries, transformations: each.transformations })
    : queries;
  const body = new scenes.VizPanel({
    title: each.title, description: each.description, pluginId: each.type, options: each.options ?? {},
    fieldConfig: each.fieldConfig, $data: transformed,
  });
  const { x, y, w: width, h: height } = each.gridPos;
  return new scenes.SceneGridItem({ x, y, width, height, body });
}

function variable(each: any) {
  const { name, label, query, hide, regex, multi: isMulti, includeAll, allValue, sort, refresh, datasource } = each;
  const { text, value } = each.current ?? {};
  if (each.type === 'textbox') {
    return new scenes.TextBoxVariable({ name, label, value: value ?? query, hide } as any);
  }
  return each.type === 'datasource'
    ? new scenes.DataSourceVariable({ name, label, pluginId: query, text, value, hide } as any)
    : new scenes.QueryVariable({
        name, label, query, hide, regex, isMulti, includeAll, allValue, sort, refresh, datasource, text, value,
      } as any);
}

function sceneOf(board: any) {
  const children: any[] = [];
  for (const each of board.panels) {
    if (each.type === 'row') {
      const { title, collapsed: isCollapsed, gridPos, panels } = each;
      children.push(
        new scenes.SceneGridRow({ title, isCollapsed, y: gridPos.y, children: (panels ?? []).map(panel) } as any)
      );
    } else {
      const row = children.at(-1);
      row.setState({ children: [...row.state.children, panel(each)] });
    }
  }
  const { from, to } = board.time;
  return new scenes.EmbeddedScene({
    $timeRange: new scenes.SceneTimeRange({ from, to, timeZone: 'browser' }),
    $variables: new scenes.SceneVariableSet({ variables: board.templating.list.map(variable) }),
    controls: [
      new scenes.VariableValueSelectors({}), new scenes.SceneControlsSpacer(), new scenes.SceneTimePicker({}),
      new scenes.SceneRefreshPicker({ refresh: board.refresh }),
    ],
    body: new scenes.SceneGridLayout({ children, isDraggable: false, isResizable: false }),
  });
}

function Page({ board, scene }: { board: any; scene: scenes.EmbeddedScene }) {
  const [isSynced, setSynced] = useState(false);
  useEffect(() => {
    new scenes.UrlSyncManager().initSync(scene);
    setSynced(true);
  }, [scene]);
  const rows = Math.max(...board.panels.map((each: any) => each.gridPos.y + each.gridPos.h));
  const head = { display: 'flex', alignItems: 'center', gap: 8, padding: '8px 16px 0' };
  const body = { display: 'flex', flexDirection: 'column' as const, height: rows * ROW + 120, padding: '0 8px 8px' };
  return (
    <div id="page" style={{ background: theme.colors.background.canvas, minHeight: '100vh' }}>
      <div style={head}>
        <span style={{ flex: 1, fontSize: theme.typography.h4.fontSize }}>{board.title}</span>
        {board.links.map((link: any) => (
          <ToolbarButton key={link.title} icon="bars" isOpen={false}>
            {link.title}
          </ToolbarButton>
        ))}
      </div>
      <div style={body}>{isSynced && <scene.Component model={scene} />}</div>
    </div>
  );
}

const MISSING = (window as any).hasLoki ? ['tempo'] : ['tempo', 'loki'];

/** The panels without those of Tempo, or of Loki if there is none, and without the rows that have no other ones. */
function withoutOthers(panels: any[]): any[] {
  const isOurs = (each: any) => !MISSING.includes(each.datasource?.type);
  const kept = panels
    .filter(isOurs)
    .map((each) => (each.panels ? { ...each, panels: each.panels.filter(isOurs) } : each));
  const isEmpty = (each: any, at: number) =>
    each.type === 'row' && !each.panels?.length && (kept[at + 1]?.type ?? 'row') === 'row';
  return kept.filter((each, at) => !isEmpty(each, at));
}

async function show() {
  registerAsGrafanaDoes();
  provideServices();
  const uid = location.pathname.split('/').at(-1);
  const board = await (await fetch(`/boards/${uid}.json`)).json();
  board.panels = withoutOthers(board.panels);
  board.templating.list = board.templating.list.filter((each: any) => !MISSING.includes(each.query));
  const scene = sceneOf(board);
  Object.assign(report, { board, scene });
  createRoot(document.getElementById('root')!).render(
    <data.ThemeContext.Provider value={theme}>
      <BrowserRouter>
        <GlobalStyles />
        <Page board={board} scene={scene} />
        <PortalContainer />
      </BrowserRouter>
    </data.ThemeContext.Provider>
  );
}

void show();
